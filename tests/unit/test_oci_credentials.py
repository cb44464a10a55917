"""Credentials: Docker's file and its helpers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.oci.credentials import Credential, CredentialStore

ALICE = base64.b64encode(b"alice:s3:cret").decode()


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    return CredentialStore(tmp_path / "config.json")


def write(tmp_path: Path, data: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(data))


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bin" / "docker-credential-fake"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("https://ghcr.io/v1/", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_login_is_found_however_docker_filed_it(tmp_path: Path, store: CredentialStore, key: str, domain: str) -> None:
    write(tmp_path, {"auths": {key: {"auth": ALICE}}})

    assert store.find(domain) == Credential("alice", "s3:cret")
    assert store.find("other.io") is None


def auth_of(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:x".encode()).decode()}


@pytest.mark.parametrize(
    ("keys", "image", "chosen"),
    [
        (["http://r.example/v2/", "r.example"], "r.example/app", "r.example"),
        (["https://r.example/v1/", "https://r.example", "http://r.example"], "r.example/app", "https://r.example"),
        (["https://r.example/v1/", "https://r.example/v2/"], "r.example/app", "https://r.example/v2/"),
        (["http://r.example", "https://r.example/v1/"], "r.example/app", "https://r.example/v1/"),
        (["r.example/v1/", "r.example"], "r.example/app", "r.example"),
        (["r.example/v1/"], "r.example/app", "r.example/v1/"),
        (["r.example", "r.example/team"], "r.example/team/app", "r.example/team"),
        (
            ["r.example/team", "r.example/team/app/deep", "r.example/team/app"],
            "r.example/team/app/deep/er",
            "r.example/team/app/deep",
        ),
        (["r.example/team", "r.example"], "r.example/teams/app", "r.example"),
        (["r.example/team"], "r.example/other", None),
        (["https://r.example/team"], "r.example/other", "https://r.example/team"),
        (["r.example/v2"], "r.example/v2/app", "r.example/v2"),
        (["r.example:5000", "r.example"], "r.example/app", "r.example"),
        (["r.example", "r.example:5000"], "r.example:5000/app", "r.example:5000"),
        (["r.example"], "r.example:5000/app", None),
        (["r.example:443"], "r.example:5000/app", None),
        (["h.EXAMPLE"], "h.example/app", "h.EXAMPLE"),
        (["h.EXAMPLE", "h.example"], "h.example/app", "h.example"),
        (["HTTPS://r.example/v2/"], "r.example/app", "HTTPS://r.example/v2/"),
        (["evil.r.example", "r.example.evil", "https://evil/r.example", "ftp://r.example"], "r.example/app", None),
        (["docker.io", "https://index.docker.io/v1/"], "docker.io/library/a", "https://index.docker.io/v1/"),
        (["registry-1.docker.io", "index.docker.io", "docker.io"], "docker.io/library/a", "docker.io"),
        (["https://registry-1.docker.io/v2/"], "docker.io/library/a", "https://registry-1.docker.io/v2/"),
        (["https://index.docker.io/v1/", "docker.io/me"], "docker.io/me/a", "docker.io/me"),
        (["hub.docker.com", "notdocker.io"], "docker.io/library/a", None),
    ],
)
def test_login_of_several_is_the_one_that_was_meant(
    tmp_path: Path, store: CredentialStore, keys: list[str], image: str, chosen: str | None
) -> None:
    domain, _, repository = image.partition("/")
    for order in (keys, keys[::-1]):
        write(tmp_path, {"auths": {key: auth_of(key.replace(":", "|")) for key in order}})

        found = store.find(domain, repository)

        assert (found.username.replace("|", ":") if found else None) == chosen


def test_entry_without_a_login_does_not_hide_the_next(tmp_path: Path, store: CredentialStore) -> None:
    write(tmp_path, {"auths": {"ghcr.io/team": {}, "ghcr.io": auth_of("alice")}})

    assert store.find("ghcr.io", "team/app") == Credential("alice", "x")


def test_login_with_line_breaks_in_it_is_read(tmp_path: Path, store: CredentialStore) -> None:
    write(tmp_path, {"auths": {"ghcr.io": {"auth": ALICE[:7] + "\n" + ALICE[7:] + "\r\n"}}})

    assert store.find("ghcr.io") == Credential("alice", "s3:cret")


def test_absent_file_has_no_login(store: CredentialStore) -> None:
    assert store.find("ghcr.io") is None


def test_identity_token_is_a_refresh_token(tmp_path: Path, store: CredentialStore) -> None:
    write(tmp_path, {"auths": {"acr.io": {"auth": ALICE, "identitytoken": "r3fresh"}}})

    assert store.find("acr.io") == Credential(refresh_token="r3fresh")


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"ghcr.io": {"auth": "!"}}}'])
def test_file_that_is_not_dockers_is_a_usage_error_naming_it(tmp_path: Path, store: CredentialStore, text: str) -> None:
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(BangerError, match=r"config\.json") as failure:
        store.find("ghcr.io")
    assert failure.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize("data", [{"credsStore": "fake"}, {"credHelpers": {"ghcr.io": "fake"}}])
def test_helper_is_asked_for_the_host(
    tmp_path: Path, store: CredentialStore, monkeypatch: pytest.MonkeyPatch, data: Any
) -> None:
    helper(tmp_path, monkeypatch, """read host; echo "{\\"Username\\": \\"$1@$host\\", \\"Secret\\": \\"x\\"}" """)
    write(tmp_path, data)

    assert store.find("ghcr.io") == Credential("get@ghcr.io", "x")


ECHO = """read host; echo "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"x\\"}" """


@pytest.mark.parametrize(
    ("data", "domain", "username"),
    [
        ({"credHelpers": {"ghcr.io": "fake"}, "credsStore": "nobody"}, "ghcr.io", "ghcr.io"),
        ({"credHelpers": {"quay.io": "fake"}, "auths": {"ghcr.io": {"auth": ALICE}}}, "ghcr.io", "alice"),
        (
            {"credHelpers": {"ghcr.io": ""}, "credsStore": "fake", "auths": {"ghcr.io": {"auth": ALICE}}},
            "ghcr.io",
            "alice",
        ),
        ({"credHelpers": {"http://ghcr.io": "nobody", "ghcr.io": "fake"}}, "ghcr.io", "ghcr.io"),
        ({"credsStore": "fake", "auths": {"ghcr.io": {"auth": ALICE}}}, "ghcr.io", "ghcr.io"),
        ({"credsStore": "nobody", "auths": {"ghcr.io": {"auth": ALICE}}}, "ghcr.io", "alice"),
        ({"credHelpers": {"docker.io": "fake"}}, "docker.io", "https://index.docker.io/v1/"),
        ({"credHelpers": {"https://index.docker.io/v1/": "fake"}}, "docker.io", "https://index.docker.io/v1/"),
    ],
)
def test_helper_of_the_host_comes_before_that_of_all_and_before_the_file(
    tmp_path: Path, store: CredentialStore, monkeypatch: pytest.MonkeyPatch, data: Any, domain: str, username: str
) -> None:
    helper(tmp_path, monkeypatch, ECHO)
    write(tmp_path, data)
    found = store.find(domain, "team/app")

    assert found is not None
    assert found.username == username


def test_helper_is_asked_for_the_url_that_was_logged_in_to(
    tmp_path: Path, store: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'read server; [ "$server" = https://ghcr.io/v2/ ] || { echo credentials not found; exit 1; }; '
    helper(tmp_path, monkeypatch, script + """echo '{"Username": "alice", "Secret": "x"}'""")
    write(tmp_path, {"credsStore": "fake", "auths": {"https://quay.io": {}, "https://ghcr.io/v2/": {}}})

    assert store.find("ghcr.io", "team/app") == Credential("alice", "x")


def test_helper_that_has_nothing_is_no_failure(
    tmp_path: Path, store: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    write(tmp_path, {"credsStore": "fake"})

    assert store.find("ghcr.io") is None


def test_helper_that_is_not_installed_is_no_failure(tmp_path: Path, store: CredentialStore) -> None:
    write(tmp_path, {"credsStore": "desktop-of-somebody-else"})

    assert store.find("ghcr.io") is None


@pytest.mark.parametrize("script", ["echo locked >&2; exit 1", "echo nonsense", "echo '{}'"])
def test_helper_that_fails_is_named(
    tmp_path: Path, store: CredentialStore, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    helper(tmp_path, monkeypatch, script)
    write(tmp_path, {"credsStore": "fake"})

    with pytest.raises(BangerError, match="docker-credential-fake") as failure:
        store.find("ghcr.io")
    assert failure.value.kind is ErrorKind.UNAVAILABLE


def test_helper_name_with_a_path_is_not_run(tmp_path: Path, store: CredentialStore) -> None:
    write(tmp_path, {"credsStore": "x/../../../bin/sh"})

    with pytest.raises(BangerError, match="odd characters"):
        store.find("ghcr.io")


def test_file_is_looked_for_where_docker_does(tmp_path: Path) -> None:
    write(tmp_path, {"auths": {"ghcr.io": {"auth": ALICE}}})
    explicit, directory = str(tmp_path / "config.json"), {"DOCKER_CONFIG": str(tmp_path)}

    assert CredentialStore.configured(explicit, {}).find("ghcr.io")
    assert CredentialStore.configured("", directory).find("ghcr.io")
    assert CredentialStore.configured("", {"HOME": str(tmp_path)}).find("ghcr.io") is None


def test_secrets_stay_out_of_repr() -> None:
    assert "s3cret" not in repr(Credential("alice", "s3cret", "r3fresh"))
    assert "r3fresh" not in repr(Credential("alice", "s3cret", "r3fresh"))
