"""Pushing: blobs streamed from files, then the manifest that names them.

Protocol: OCI distribution specification 1.1, "Pushing a blob monolithically" (POST, then PUT), which every registry
has; chunked uploads differ too much between registries. Nothing becomes visible before the manifest is there, so an
upload that breaks off leaves nothing but what the registry's own clean-up collects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit

import requests

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.oci import push_failures
from banger.oci.artifact import LocalBlob, digest_of
from banger.oci.documents import OCI_MANIFEST
from banger.oci.registry import RegistryClient
from banger.oci.retry import TransientError
from banger.oci.stall_timer import StallTimer

Progress = Callable[[int], None]

_CHUNK_BYTES = 1 << 18
_OCTETS = "application/octet-stream"


class PushClient(RegistryClient):
    """Writes one artifact to one repository on behalf of one operation. Authenticates as its base does."""

    _ACTIONS = "pull,push"

    def push_blob(self, blob: LocalBlob, progress: Progress) -> bool:
        """Make sure the repository has ``blob``; False if it had it already.

        Args:
            blob: what to upload; read as often as attempts are needed, never held in memory.
            progress: told the bytes sent in absolute terms; falls back to 0 when an attempt starts anew.

        Raises:
            BangerError: ``denied``, ``not_found``, ``exhausted`` (a quota), ``invalid``,
                ``unavailable`` or ``cancelled``.
        """
        retrier = self.retrier()
        furthest = 0

        def attempt() -> bool:
            nonlocal furthest
            reached, before = 0, retrier.stall_timer.mark()

            def follow(sent: int) -> None:
                nonlocal reached
                reached = sent
                progress(sent)

            try:
                return self._push_once(blob, follow, retrier.stall_timer)
            except TransientError:
                if reached <= furthest:  # what fits into the buffers between here and there is always "sent" at once
                    retrier.stall_timer.restore(before)
                furthest = max(furthest, reached)
                raise

        sent = retrier.run(attempt)
        progress(blob.size)
        return sent

    def push_manifest(self, body: bytes, media_type: str = OCI_MANIFEST) -> str:
        """Upload a manifest under the reference's tag, or its digest if it has no tag; returns the digest.

        Raises:
            BangerError: as :meth:`push_blob`; ``usage`` if the reference names another digest.
        """
        digest = digest_of(body)
        if self.reference.digest not in ("", digest):
            message = f'"{self.reference.familiar()}" names another digest than that of what is pushed'
            hint = f"push to {self.reference.domain}/{self.reference.repository}:TAG"
            raise BangerError(ErrorKind.USAGE, message, subject=str(self.reference), cause=digest, hint=hint)
        target = self.reference.tag or digest

        retrier = self.retrier()

        def attempt() -> None:
            headers = {"Content-Type": media_type}
            with self._call("PUT", f"manifests/{target}", headers, retrier.stall_timer, body) as response:
                stored = response.headers.get("Docker-Content-Digest", digest)
            if stored != digest:
                raise push_failures.changed(self.reference, digest, stored)

        retrier.run(attempt)
        return digest

    def _push_once(self, blob: LocalBlob, progress: Progress, stall_timer: StallTimer) -> bool:
        if self._has(blob, stall_timer):
            return False
        progress(0)
        with self._call("POST", "blobs/uploads/", {}, stall_timer) as started:
            said = started.headers.get("Location", "")
        try:
            location = urljoin(started.url, said)
        except ValueError as error:
            raise push_failures.bad_location(self.reference, said) from error
        separator = "&" if urlsplit(location).query else "?"
        url = f"{location}{separator}digest={quote(blob.digest, safe='')}"
        body = _BlobUpload(blob, self.token, progress, stall_timer) if blob.file else blob.data
        self._upload(url, {"Content-Type": _OCTETS}, body, stall_timer).close()
        return True

    def _has(self, blob: LocalBlob, stall_timer: StallTimer) -> bool:
        url = f"{self._endpoint.url}/{self.reference.repository}/blobs/{blob.digest}"
        with self.do_request(url, "HEAD", stall_timer=stall_timer) as response:
            # 404 is the usual answer; whatever else is wrong, the upload will be told with the reason in a body.
            return response.status_code == 200

    def _call(
        self, method: str, path: str, headers: Mapping[str, str], stall_timer: StallTimer, data: Any = None
    ) -> requests.Response:
        url = f"{self._endpoint.url}/{self.reference.repository}/{path}"
        return self._checked(self.do_request(url, method, data, headers, stall_timer=stall_timer))

    def _upload(self, url: str, headers: Mapping[str, str], data: Any, stall_timer: StallTimer) -> requests.Response:
        """PUT to where the registry wants it; its credentials stay with the registry itself."""
        parts, own = urlsplit(url), urlsplit(self._endpoint.url)
        if parts.netloc == own.netloc:
            # A proxy in front of it may have made it believe that it talks plain http.
            url = parts._replace(scheme=own.scheme).geturl()
            return self._checked(self.do_request(url, "PUT", data, headers, stall_timer=stall_timer))
        if parts.scheme != "https" and not self._endpoint.plain_http:
            raise push_failures.bad_location(self.reference, url)
        return self._checked(self._exchange(stall_timer, "PUT", url, headers, data))

    def _checked(self, response: requests.Response) -> requests.Response:
        push_failures.check_status(response, self.reference, self.token)
        return response


class _BlobUpload:
    """A request body of known length that can be iterated again when a login or a failure demands it."""

    def __init__(self, blob: LocalBlob, token: CancelToken, progress: Progress, stall_timer: StallTimer) -> None:
        self._blob = blob
        self._token = token
        self._progress = progress
        self._stall_timer = stall_timer

    def __len__(self) -> int:
        return self._blob.size

    def __iter__(self) -> Iterator[bytes]:
        file = self._blob.file
        assert file is not None
        sent = 0
        try:
            source = file.open("rb", buffering=0)
        except OSError as error:
            raise _unreadable(file, error) from error
        with source:
            while chunk := self._read(source):
                # Raised in the thread that sends: it drops the connection in the middle of the body.
                self._token.raise_if_cancelled()
                yield chunk
                sent += len(chunk)
                self._stall_timer.received(len(chunk))
                self._progress(sent)

    def _read(self, source: BinaryIO) -> bytes:
        try:
            return source.read(_CHUNK_BYTES)
        except OSError as error:  # left as it is, it would pass for one of the network
            raise _unreadable(Path(source.name), error) from error


def _unreadable(file: Path, error: OSError) -> BangerError:
    message = f'cannot read "{file}"'
    return BangerError(ErrorKind.UNAVAILABLE, message, subject=str(file), cause=error.strerror or str(error))


def push_artifact(
    client: PushClient, manifest: bytes, config: LocalBlob, layers: Sequence[LocalBlob], operation: Operation
) -> str:
    """Push everything that ``manifest`` names, then the manifest itself; returns its digest.

    Args:
        client: knows where to.
        manifest: names exactly ``config`` and ``layers``.
        config: the config blob.
        layers: the other blobs.
        operation: gets the steps "push blobs" (its bytes count what the registry had already) and "push manifest".

    Raises:
        BangerError: see :class:`PushClient`.
    """
    blobs = {blob.digest: blob for blob in (*layers, config)}.values()
    total = sum(blob.size for blob in blobs)
    done = 0
    with operation.step("push blobs") as step:
        step.update(0, total)
        for blob in blobs:
            before = done
            client.push_blob(blob, lambda sent, before=before: step.update(before + sent, total))  # type: ignore[misc]
            done += blob.size
    with operation.step("push manifest"):
        return client.push_manifest(manifest)
