"""What a catalog source and a kernel source mean, and what becomes of the catalog's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from banger.catalog import Catalog, KernelLocation, resolve_kernel
from banger.catalog.host import HostFacts
from banger.catalog.refresh import CatalogRequest
from banger.core.errors import BangerError, ErrorKind

HOST = HostFacts("debian", "x86_64", can_bootstrap=True)
DIGEST = "sha256:" + "0" * 64
OTHER = "sha256:" + "1" * 64
URL = "https://kernels.example/vmlinuz"
LAB = '[kernels.lab]\nsource = "apt:linux-image-lab"\n'


@dataclass(frozen=True)
class Place:
    catalog_dir: Path


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.load(Place(tmp_path), HOST)


@pytest.mark.parametrize(
    ("source", "digest", "name", "wish"),
    [
        ("https://x.example/a/Team.toml", DIGEST, "", ("team", DIGEST)),
        ("https://x.example/a/team.toml?v=1", DIGEST, "", ("team", DIGEST)),
        ("http://127.0.0.1:1/team.toml", DIGEST, "mine", ("mine", DIGEST)),
        ("oci:ghcr.io/me/team:1", DIGEST, "", ("team", DIGEST)),
        (f"oci:ghcr.io/me/team@{DIGEST}", "", "", ("team", DIGEST)),
        (f"oci:ghcr.io/me/team@{DIGEST}", DIGEST, "x.y", ("x.y", DIGEST)),
    ],
)
def test_catalog_source_is_understood(source: str, digest: str, name: str, wish: tuple[str, str]) -> None:
    assert CatalogRequest.parse(source, digest, name) == CatalogRequest(wish[0], source, wish[1])


@pytest.mark.parametrize(
    ("source", "digest", "name", "said"),
    [
        ("https://x.example/team.toml", "", "", "is not pinned by a digest"),
        ("oci:ghcr.io/me/team:1", "", "", "is not pinned by a digest"),
        ("https://x.example/team.toml", "sha256:12", "", "is not a digest"),
        (f"oci:ghcr.io/me/team@{DIGEST}", OTHER, "", "different digests"),
        ("oci:Not A Reference", DIGEST, "", "is not an image reference"),
        ("team.toml", DIGEST, "", "is not a catalog source"),
        ("ftp://x.example/team.toml", DIGEST, "", "is not a catalog source"),
        ("https://x.example/a\nb.toml", DIGEST, "", "is not a catalog source"),
        ("https://[::1/team.toml", DIGEST, "", "is not a catalog source"),
        ("https://x.example/", DIGEST, "", "cannot be the name"),
        ("https://x.example/team.toml", DIGEST, "../up", "cannot be the name"),
        ("https://x.example/team.toml", DIGEST, ".hidden", "cannot be the name"),
    ],
)
def test_catalog_source_that_is_none_is_a_usage_error(source: str, digest: str, name: str, said: str) -> None:
    with pytest.raises(BangerError, match=said) as caught:
        CatalogRequest.parse(source, digest, name)
    assert caught.value.kind is ErrorKind.USAGE


def test_header_is_a_comment_with_source_and_digest() -> None:
    header = CatalogRequest.parse("https://x.example/team.toml", DIGEST).header()
    assert all(line.startswith("# ") for line in header.splitlines())
    assert "https://x.example/team.toml" in header
    assert DIGEST in header


def test_installed_file_is_in_use_at_once(catalog: Catalog, tmp_path: Path) -> None:
    catalog.install("team", LAB, lambda file: file.write_text(LAB) and None)

    entry = catalog.kernel("lab")

    assert entry is not None
    assert entry.origin == str(tmp_path / "team.toml")
    assert Catalog.load(Place(tmp_path), HOST).entries() == catalog.entries()


def test_file_that_would_break_the_catalog_is_never_written(catalog: Catalog, tmp_path: Path) -> None:
    before = catalog.entries()
    with pytest.raises(BangerError, match=r"kernels\.lab\.source"):
        catalog.install("team", "[kernels.lab]\n", lambda file: file.write_text("x") and None)
    assert list(tmp_path.iterdir()) == []
    assert catalog.entries() == before


def test_file_that_cannot_be_written_changes_nothing(catalog: Catalog) -> None:
    def fail(file: Path) -> None:
        raise BangerError(ErrorKind.DENIED, f'cannot write "{file}"')

    with pytest.raises(BangerError, match="cannot write"):
        catalog.install("team", LAB, fail)
    assert catalog.kernel("lab") is None


def test_broken_file_of_the_users_own_is_named_and_nothing_is_written(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[")
    with pytest.raises(BangerError, match=r"own\.toml"):
        catalog.install("team", LAB, lambda file: file.write_text(LAB) and None)
    assert [path.name for path in tmp_path.iterdir()] == ["own.toml"]


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("debian-cloud", KernelLocation("debian-cloud", "apt:linux-image-cloud-amd64")),
        ("oci:ghcr.io/me/k:1", KernelLocation("ghcr.io/me/k:1", "oci:ghcr.io/me/k:1")),
        ("ghcr.io/me/k", KernelLocation("ghcr.io/me/k", "oci:ghcr.io/me/k")),
        ("127.0.0.1:5000/k:1", KernelLocation("127.0.0.1:5000/k:1", "oci:127.0.0.1:5000/k:1")),
        ("apt:linux-image-amd64", KernelLocation("linux-image-amd64", "apt:linux-image-amd64")),
        (f"{URL}#sha256={'0' * 64}", KernelLocation("", f"{URL}#sha256={'0' * 64}")),
    ],
)
def test_kernel_is_a_name_or_a_place(catalog: Catalog, text: str, wish: KernelLocation) -> None:
    assert resolve_kernel(text, catalog) == wish


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        ("debian-clod", ErrorKind.NOT_FOUND, 'did you mean "debian-cloud"?'),
        ("zzz", ErrorKind.NOT_FOUND, "banger catalog list"),
        ("", ErrorKind.USAGE, ""),
        (URL, ErrorKind.USAGE, f"banger kernel pull {URL} --sha256 HEX --name NAME"),
        (f"{URL}#sha256=12", ErrorKind.USAGE, "--sha256"),
        ("oci:", ErrorKind.USAGE, ""),
        ("apt:", ErrorKind.USAGE, "apt:linux-image"),
        ("apt:-oAPT::Update::Pre-Invoke::=id", ErrorKind.USAGE, "apt:linux-image"),
        ("apt:linux-image-amd64 x", ErrorKind.USAGE, "apt:linux-image"),
    ],
)
def test_kernel_that_is_neither_is_an_error(catalog: Catalog, text: str, kind: ErrorKind, hint: str) -> None:
    with pytest.raises(BangerError) as caught:
        resolve_kernel(text, catalog)
    assert caught.value.kind is kind
    assert hint in caught.value.hint
