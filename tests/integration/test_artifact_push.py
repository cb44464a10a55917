"""Pushing against registries that refuse, break off, stall, or send the upload elsewhere."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.oci.artifact import LocalBlob, manifest_bytes
from banger.oci.credentials import Credential
from banger.oci.push import PushClient, push_artifact
from banger.oci.reference import Reference
from banger.oci.registry import Endpoint, Timeouts
from banger.oci.retry import RetryPolicy
from tests.support.faulty_registry import registry_error
from tests.support.uploads import Fault, UploadRegistry, cut, stalled, status, upload_registry

BIG = 3_000_000


@pytest.fixture
def registry() -> Iterator[UploadRegistry]:
    with upload_registry() as server:
        yield server


@pytest.fixture
def blob(tmp_path: Path) -> LocalBlob:
    file = tmp_path / "blob"
    file.write_bytes(os.urandom(BIG))
    return LocalBlob.of_file("text/plain", file, CancelToken())


def client(registry: UploadRegistry, target: str = "repo:1", **arguments: Any) -> PushClient:
    reference = Reference.parse(registry.reference(target))
    retry = RetryPolicy(attempts=3, first_s=0.01, longest_s=0.05)
    arguments = {"timeouts": Timeouts(2.0, 5.0), "retry": retry, **arguments}
    return PushClient(reference, Endpoint.of(reference), arguments.pop("token", CancelToken()), **arguments)


CONFIG = LocalBlob.of_bytes("application/json", b"{}")


def push(registry: UploadRegistry, blob: LocalBlob, operation: Operation | None = None, **arguments: Any) -> str:
    body = manifest_bytes("t", CONFIG, [blob], {})
    return push_artifact(client(registry, **arguments), body, CONFIG, [blob], operation or Operation("x.push", "x"))


def test_everything_arrives_and_the_manifest_comes_last(registry: UploadRegistry, blob: LocalBlob) -> None:
    operation = Operation("x.push", "x")
    digest = push(registry, blob, operation)
    assert registry.blobs.keys() == {blob.digest, CONFIG.digest}
    assert registry.manifests.keys() == {"1"}
    assert registry.requests[-1][:2] == ("PUT", "/v2/repo/manifests/1")
    assert digest.startswith("sha256:")
    (blobs, _) = operation.steps
    assert (blobs.done, blobs.total) == (BIG + 2, BIG + 2)


def test_what_the_registry_has_is_not_sent_again(registry: UploadRegistry, blob: LocalBlob) -> None:
    first = push(registry, blob)
    uploads = len(registry.asked("PUT", "/blobs/"))
    assert push(registry, blob) == first
    assert len(registry.asked("PUT", "/blobs/")) == uploads == 2


def test_upload_is_streamed_with_its_length(registry: UploadRegistry, blob: LocalBlob) -> None:
    push(registry, blob)
    headers = registry.asked("PUT", "/blobs/")[0]
    assert headers["Content-Length"] == str(BIG)
    assert "Transfer-Encoding" not in headers


@pytest.mark.parametrize(
    ("method", "part", "fault"),
    [
        ("PUT", "/blobs/", cut(after=100_000)),
        ("PUT", "/blobs/", status(503)),
        ("PUT", "/blobs/", status(429, {"Retry-After": "0"})),
        ("POST", "/uploads/", status(500)),
        ("POST", "/uploads/", cut(after=0)),
        ("HEAD", "/blobs/", status(500)),
        ("PUT", "/manifests/", status(502)),
    ],
)
def test_passing_failure_is_tried_again(
    registry: UploadRegistry, blob: LocalBlob, method: str, part: str, fault: Fault
) -> None:
    registry.on(method, part, fault)
    push(registry, blob)
    assert registry.blobs.keys() == {blob.digest, CONFIG.digest}
    assert registry.manifests


@pytest.mark.parametrize(
    ("method", "fault", "kind"),
    [
        ("POST", status(403, {}, registry_error("DENIED", "requested access is denied")), ErrorKind.DENIED),
        ("POST", status(401), ErrorKind.DENIED),
        ("POST", status(404, {}, registry_error("NAME_UNKNOWN", "repository not known")), ErrorKind.NOT_FOUND),
        ("POST", status(400, {}, registry_error("NAME_INVALID", "invalid repository name")), ErrorKind.USAGE),
        ("POST", status(405, {}, registry_error("UNSUPPORTED", "read-only")), ErrorKind.UNAVAILABLE),
        ("PUT", status(413), ErrorKind.EXHAUSTED),
        ("PUT", status(403, {}, registry_error("DENIED", "project quota exceeded")), ErrorKind.EXHAUSTED),
        ("PUT", status(400, {}, registry_error("DIGEST_INVALID", "no match")), ErrorKind.INVALID),
    ],
)
def test_refusal_is_final_and_says_why(
    registry: UploadRegistry, blob: LocalBlob, method: str, fault: Fault, kind: ErrorKind
) -> None:
    registry.on(method, "/blobs/", fault)
    with pytest.raises(BangerError) as caught:
        push(registry, blob)
    assert caught.value.kind is kind
    assert registry.host in caught.value.message
    assert caught.value.cause
    assert len(registry.asked(method, "/blobs/")) == 1
    assert not registry.manifests
    if kind is ErrorKind.DENIED:
        assert caught.value.hint == f"docker login {registry.host}"


def test_registry_that_keeps_failing_is_unavailable_and_left_without_a_manifest(
    registry: UploadRegistry, blob: LocalBlob
) -> None:
    registry.on("PUT", "/blobs/", *[cut(after=1000)] * 3)
    with pytest.raises(BangerError) as caught:
        push(registry, blob)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert not registry.manifests
    assert push(registry, blob)


def test_token_for_pushing_is_asked_for_with_the_credentials(registry: UploadRegistry, blob: LocalBlob) -> None:
    registry.login = "alice:s3cret"
    push(registry, blob, find_credential=lambda: Credential("alice", "s3cret"))
    assert registry.manifests
    for credential in (None, Credential("alice", "wrong")):
        with pytest.raises(BangerError) as caught:
            push(registry, blob, find_credential=lambda credential=credential: credential)
        assert caught.value.kind is ErrorKind.DENIED


def test_token_that_expires_during_a_push_is_renewed_and_the_body_sent_again(
    registry: UploadRegistry, blob: LocalBlob
) -> None:
    registry.login = "alice:s3cret"
    challenge = f'Bearer realm="http://{registry.host}/token",service="s",scope="repository:repo:pull,push"'
    registry.on("PUT", "/blobs/", status(401, {"WWW-Authenticate": challenge}))
    push(registry, blob, find_credential=lambda: Credential("alice", "s3cret"))
    assert len(registry.blobs[blob.digest]) == BIG


def test_credentials_do_not_follow_the_upload_to_another_host(registry: UploadRegistry, blob: LocalBlob) -> None:
    with upload_registry() as storage:
        registry.login = "alice:s3cret"
        registry.location = f"http://{storage.host}/v2/repo/blobs/uploads/two"
        push(registry, blob, find_credential=lambda: Credential("alice", "s3cret"))
        assert storage.blobs.keys() == {blob.digest, CONFIG.digest}
        assert all("Authorization" not in headers for headers in storage.asked("PUT"))


def test_reference_with_another_digest_is_a_usage_error(registry: UploadRegistry, blob: LocalBlob) -> None:
    with pytest.raises(BangerError) as caught:
        push(registry, blob, target="repo@sha256:" + "0" * 64)
    assert caught.value.kind is ErrorKind.USAGE


def test_registry_that_stores_another_manifest_is_noticed(registry: UploadRegistry, blob: LocalBlob) -> None:
    registry.on("PUT", "/manifests/", status(201, {"Docker-Content-Digest": "sha256:" + "0" * 64}))
    with pytest.raises(BangerError, match="changed"):
        push(registry, blob)


def test_file_that_vanished_is_an_error_of_this_host(registry: UploadRegistry, blob: LocalBlob) -> None:
    assert blob.file is not None
    blob.file.unlink()
    with pytest.raises(BangerError, match="cannot read"):
        push(registry, blob)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
def test_cancelled_push_is_left_within_a_second_and_does_no_harm(
    registry: UploadRegistry, blob: LocalBlob, method: str
) -> None:
    registry.on(method, "/blobs/", stalled(after=100_000))
    token = CancelToken()
    errors: list[BangerError] = []
    left: list[float] = []

    def run() -> None:
        try:
            push(registry, blob, token=token)
        except BangerError as error:
            errors.append(error)
        left.append(time.monotonic())

    worker = threading.Thread(target=run)
    worker.start()
    assert registry.stalled.wait(10)
    cancelled_at = time.monotonic()
    token.cancel()
    worker.join(10)
    assert [error.kind for error in errors] == [ErrorKind.CANCELLED]
    assert left[0] - cancelled_at < 1
    assert not registry.blobs
    assert not registry.manifests
    registry.stopping.set()
    assert push(registry, blob)


@pytest.mark.parametrize("part", ["/blobs/uploads/", "/manifests/"])
def test_registry_that_stalls_while_it_is_pushed_to_is_given_up_after_the_total(
    registry: UploadRegistry, blob: LocalBlob, part: str
) -> None:
    registry.on("PUT", part, *[stalled(after=2)] * 20)
    untiring = RetryPolicy(attempts=1000, first_s=0.01, longest_s=0.05)
    started = time.monotonic()

    with pytest.raises(BangerError, match="stalls: ") as caught:
        push(registry, blob, timeouts=Timeouts(2.0, 0.3, 1.0), retry=untiring)

    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "registry.stall_timeout_s" in caught.value.hint
    assert time.monotonic() - started < 5
    assert registry.manifests == {}


def test_token_for_pushing_is_asked_for_where_the_registry_does_not_say_which(
    registry: UploadRegistry, blob: LocalBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.login = "alice:s3cret"
    monkeypatch.setattr(registry, "challenge", lambda _: f'Bearer realm="http://{registry.host}/token"')

    assert push(registry, blob, find_credential=lambda: Credential("alice", "s3cret")).startswith("sha256:")
