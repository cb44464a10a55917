"""The host's package sources: which ones an image may be made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.apt_sources import index_checksums, parse_deb822, parse_one_line, read_sources, select
from banger.rootfs.bootstrap import HostRelease, Recipe

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
STANDARD = f"""\
Types: deb deb-src
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates
 bookworm-backports
Components: main
Signed-By: {KEYRING}

Types: deb
URIs: http://mirror.example.org/debian-security/
Suites: bookworm-security
Components: main
Signed-By: {KEYRING}
"""


@pytest.fixture
def keyrings(tmp_path: Path) -> Path:
    directory = tmp_path / "keyrings"
    directory.mkdir()
    (directory / "debian-archive-keyring.gpg").touch()
    return directory


def chosen(text: str, keyrings: Path, suite: str = "bookworm", distribution: str = "debian") -> list[str]:
    parse = parse_deb822 if "Types:" in text else parse_one_line
    return [source.line() for source in select(parse(text), distribution, "bookworm", suite, keyrings)]


def test_standard_sources_are_taken_without_backports(keyrings: Path) -> None:
    assert chosen(STANDARD, keyrings) == [
        f"deb [signed-by={KEYRING}] http://mirror.example.org/debian bookworm main",
        f"deb [signed-by={KEYRING}] http://mirror.example.org/debian bookworm-updates main",
        f"deb [signed-by={KEYRING}] http://mirror.example.org/debian-security bookworm-security main",
    ]


def test_another_release_is_asked_from_the_same_mirrors(keyrings: Path) -> None:
    assert chosen(STANDARD, keyrings, "trixie") == [
        f"deb [signed-by={KEYRING}] http://mirror.example.org/debian trixie main",
        f"deb [signed-by={KEYRING}] http://mirror.example.org/debian trixie-updates main",
        f"deb [signed-by={KEYRING}] http://mirror.example.org/debian-security trixie-security main",
    ]


def test_rolling_suite_has_no_updates(keyrings: Path) -> None:
    assert chosen(STANDARD, keyrings, "sid") == [f"deb [signed-by={KEYRING}] http://mirror.example.org/debian sid main"]


def test_one_line_source_without_a_keyring_is_pinned_to_the_distributions(keyrings: Path) -> None:
    text = "deb http://mirror.lan/debian bookworm main contrib other # ours\n\n# deb http://x/debian bookworm main\n"

    assert chosen(text, keyrings) == [
        f"deb [signed-by={keyrings}/debian-archive-keyring.gpg] http://mirror.lan/debian bookworm main contrib"
    ]


def test_source_that_names_the_alias_serves_the_code_name(keyrings: Path) -> None:
    assert chosen("deb http://mirror.lan/debian stable main", keyrings) == [
        f"deb [signed-by={keyrings}/debian-archive-keyring.gpg] http://mirror.lan/debian bookworm main"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "deb https://vendor.example.net/apt vendor-bookworm main",
        "deb [signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian bookworm stable",
        "deb [signed-by=/usr/share/keyrings/sury.gpg] https://packages.sury.org/php bookworm main",
        "deb [signed-by=/usr/share/keyrings/sury.gpg] https://evil.example/debian bookworm main",
        "deb https://evil.example/packages bookworm main",
        "deb [trusted=yes] http://mirror.lan/debian bookworm main",
        "deb [allow-insecure=yes] http://mirror.lan/debian bookworm main",
        "deb http://user:secret@mirror.lan/debian bookworm main",
        "deb cdrom:[Debian]/debian bookworm main",
        "deb-src http://mirror.example.org/debian bookworm main",
        "deb http://mirror.example.org/debian ./",
        "deb http://mirror.example.org/debian bookworm-backports main",
        "Types: deb\nURIs: https://node.example.net/node_20.x\nSuites: nodistro\nComponents: main\nSigned-By: /usr/share/keyrings/nodesource.gpg",
        f"Types: deb\nEnabled: no\nURIs: http://mirror.example.org/debian\nSuites: bookworm\nComponents: main\nSigned-By: {KEYRING}",
        f"Types: deb\nTrusted: yes\nURIs: http://mirror.example.org/debian\nSuites: bookworm\nComponents: main\nSigned-By: {KEYRING}",
        "Types: deb\nURIs: http://mirror.lan/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .",
        "nonsense",
    ],
)
def test_source_of_a_third_party_or_without_a_signature_is_left_out(keyrings: Path, text: str) -> None:
    assert chosen(text, keyrings) == []


def test_source_without_any_keyring_is_left_out(tmp_path: Path) -> None:
    assert chosen("deb http://mirror.lan/debian bookworm main", tmp_path) == []


def test_mirror_list_is_replaced_by_its_first_mirror(keyrings: Path, tmp_path: Path) -> None:
    mirrors = tmp_path / "debian.list"
    mirrors.write_text("# best first\nhttps://mirror.example.org/debian priority:1\nhttp://other/debian\n")
    text = f"Types: deb\nURIs: mirror+file://{mirrors}\nSuites: bookworm\nComponents: main\nSigned-By: {KEYRING}"

    assert chosen(text, keyrings) == [f"deb [signed-by={KEYRING}] https://mirror.example.org/debian bookworm main"]


def test_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a/debian bookworm main\n")
    (parts / "b.sources").write_text("Types: deb\nURIs: http://b/debian\nSuites: bookworm\nComponents: main\n")
    (parts / "c.list").write_text("deb http://c/debian bookworm main\n")
    (parts / "d.list.disabled").write_text("deb http://d/debian bookworm main\n")

    assert [source.uri for source in read_sources(tmp_path)] == [
        "http://a/debian",
        "http://b/debian",
        "http://c/debian",
    ]


def test_checksums_are_those_of_the_wanted_package_lists_only() -> None:
    release = (
        "Suite: stable\nDate: Sat, 01 Nov 2026\nMD5Sum:\n 0 1 main/binary-amd64/Packages\nSHA256:\n"
        " aa  10 main/binary-amd64/Packages.xz\n bb  20 main/binary-arm64/Packages.xz\n cc 30 contrib/binary-amd64/Packages\n"
        " dd 40 main/binary-amd64/Packages\n-----BEGIN PGP SIGNATURE-----\n"
    )

    assert index_checksums(release, ["main"], "amd64") == [
        "aa 10 main/binary-amd64/Packages.xz",
        "dd 40 main/binary-amd64/Packages",
    ]


def test_reference_names_suite_and_packages_in_any_order() -> None:
    assert Recipe.parse("mmdebstrap:host") == Recipe("host")
    assert Recipe.parse("mmdebstrap:trixie?include=git,curl,git") == Recipe("trixie", ("curl", "git"))
    assert Recipe("trixie", ("curl", "git")).reference == "mmdebstrap:trixie?include=curl,git"


@pytest.mark.parametrize(
    "reference",
    [
        "mmdebstrap:",
        "mmdebstrap:-x",
        "mmdebstrap:Trixie",
        "mmdebstrap:a/../b",
        "mmdebstrap:trixie?include=--option",
        "mmdebstrap:trixie?include=a b",
        "mmdebstrap:trixie?exclude=a",
        "debian",
    ],
)
def test_reference_that_cannot_be_bootstrapped_is_a_usage_error(reference: str) -> None:
    with pytest.raises(BangerError) as failure:
        Recipe.parse(reference)
    assert failure.value.kind is ErrorKind.USAGE


def test_host_release_is_read_from_os_release(tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text('NAME="Debian GNU/Linux"\nVERSION_CODENAME=bookworm\nID=debian\n')

    assert HostRelease.read("amd64", file) == HostRelease("debian", "bookworm", "amd64")
    assert HostRelease.read("amd64", tmp_path / "absent") == HostRelease("", "", "amd64")
