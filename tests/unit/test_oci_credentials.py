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
