"""The blob store: verified content under ``sha256/<hex>``, ``<hex>.part`` while it arrives.

What has a digest's name is complete, was hashed as it arrived and is on disk: it got there by one rename. Several
images that need the same blob share one transfer: whoever comes second waits, and finds it or takes over.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from banger.core.cancel import CancelToken
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Leases
from banger.core.units import format_size
from banger.oci.arrival import Arrival
from banger.oci.documents import Descriptor
from banger.oci.retry import Retrier, TransientError
from banger.oci.stall_timer import StallTimer
from banger.posix.files import sync_path

Progress = Callable[[int], None]

_CHUNK_BYTES = 1 << 20
#: Progress that proves a flaky connection worth another full round of attempts.
_WORTHWHILE_BYTES = 1 << 20
_POLL_S = 0.1
#: Left free for everybody else on the file system.
_RESERVE_BYTES = 64 << 20


class Body(Protocol):
    """A transfer under way."""

    start: int
    length: int | None

    def read(self) -> bytes:
        """The next bytes, empty at the end."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Origin(Protocol):
    """Where blobs come from: a registry client."""

    token: CancelToken

    def open_blob(self, digest: str, offset: int, stall_timer: StallTimer) -> Body:
        """Start a transfer; ``stall_timer`` is that of the blob's failure counter."""
        ...

    def retrier(self) -> Retrier:
        """A fresh failure counter."""
        ...


class BlobStore:
    """Verified blobs in one directory, which only this process writes."""

    def __init__(
        self, root: Path, free_bytes: Callable[[Path], int] | None = None, leases: Leases | None = None
    ) -> None:
        """Open the store; ``root`` is made when it is first needed.

        Args:
            root: holds ``sha256/``.
            free_bytes: tells the free space of a file system; given only by tests.
            leases: keep blobs that are in use from being pruned.
        """
        self._leases = leases
        self._directory = root / "sha256"
        self._free_bytes = free_bytes or (lambda path: shutil.disk_usage(path).free)
        self._locks: dict[str, _SharedLock] = {}
        self._guard = threading.Lock()

    def path(self, digest: str) -> Path:
        """Where the blob is, once it is there."""
        return self._directory / digest.removeprefix("sha256:")

    def lease(self, holder: str, blobs: Iterable[Descriptor]) -> None:
        """Keep ``blobs``, here or still to come, from being pruned while the operation ``holder`` goes on.

        Call it before they are fetched.
        """
        if self._leases is not None:
            self._leases.take(holder, [f"blob:{self.path(blob.digest).name}" for blob in blobs])

    def has(self, blob: Descriptor) -> bool:
        """True if the blob is there in full length."""
        return _length(self.path(blob.digest)) == blob.size

    def require_room(self, blobs: Iterable[Descriptor]) -> None:
        """Raise ``exhausted`` if what is still missing of ``blobs`` does not fit."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        distinct = {blob.digest: blob for blob in blobs if not self.has(blob)}.values()
        missing = sum(max(0, blob.size - (_length(self._part(blob)) or 0)) for blob in distinct)
        free = self._free_bytes(self._directory)
        if missing and missing + _RESERVE_BYTES > free:
            cause = f"{format_size(missing)} ({missing} bytes) to fetch, {format_size(free)} free"
            raise _exhausted(cause, self._directory)

    def fetch(self, blob: Descriptor, origin: Origin, progress: Progress, arrival: Arrival | None = None) -> Path:
        """Return the path of the verified blob, transferring what is missing of it.

        Args:
            blob: what is wanted; its digest and size are matched exactly.
            origin: where from. Its token abandons the wait and the transfer; what has arrived is kept for the next one.
            progress: told the bytes present so far, in absolute terms.
            arrival: told where they can be read already, for those who do not wait for the end; the end itself is left
                to the caller to tell.

        Raises:
            BangerError: ``invalid`` for content that does not match, ``exhausted`` for a full disk, ``unavailable``
                when the registry fails for too long.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        arrival = arrival or Arrival(blob.size)
        with self._alone(blob, origin.token, progress):
            path = self.path(blob.digest)
            if not _is_intact(path, blob, origin.token, arrival):
                try:
                    _Transfer(self._part(blob), blob, origin, progress, arrival).run()
                    _publish(self._part(blob), path)
                except OSError as error:
                    raise self._disk_failure(blob, error) from error
        progress(blob.size)
        return path

    def give_up(self, blob: Descriptor) -> None:
        """Drop what has come of a blob that nobody is fetching: room matters more now than a later resume."""
        with self._guard:
            if blob.digest not in self._locks:
                self._part(blob).unlink(missing_ok=True)

    def _part(self, blob: Descriptor) -> Path:
        return self.path(blob.digest).with_suffix(".part")

    @contextmanager
    def _alone(self, blob: Descriptor, token: CancelToken, progress: Progress) -> Iterator[None]:
        """Hold the digest's lock; meanwhile report how far its present holder has come."""
        with self._guard:
            shared = self._locks.setdefault(blob.digest, _SharedLock())
            shared.users += 1
        try:
            while not shared.lock.acquire(timeout=_POLL_S):
                token.raise_if_cancelled()
                progress(min(_length(self._part(blob)) or 0, blob.size))
            try:
                yield
            finally:
                shared.lock.release()
        finally:
            with self._guard:
                shared.users -= 1
                if not shared.users:
                    del self._locks[blob.digest]

    def _disk_failure(self, blob: Descriptor, error: OSError) -> BangerError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._part(blob).unlink(missing_ok=True)  # room matters more now than a later resume
            cause = f"{os.strerror(error.errno)} after the download began; the blob has {blob.size} bytes"
            return _exhausted(cause, self._directory)
        message = f'cannot write blob "{blob.digest}"'
        return BangerError(ErrorKind.UNAVAILABLE, message, subject=blob.digest, cause=str(error))


class _SharedLock:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class _Transfer:
    """Brings one ``.part`` file to its full, verified length."""

    def __init__(self, part: Path, blob: Descriptor, origin: Origin, progress: Progress, arrival: Arrival) -> None:
        self._part = part
        self._blob = blob
        self._origin = origin
        self._progress = progress
        self._arrival = arrival
        self._hash = hashlib.sha256()
        self._offset = 0

    def run(self) -> None:
        """Leave a complete, synced ``.part``, or a shorter one to resume from and an error."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._part, flags, 0o600)
        crashpoint("blob.fetch:part-open")
        try:
            self._rehash(descriptor)
            resumed = self._offset > 0
            self._receive(descriptor)
            if resumed and not self._matches():
                self._restart(descriptor)  # the old part may have been the bad one
                self._receive(descriptor)
            if not self._matches():
                mismatch = self._mismatch(f"its bytes hash to sha256:{self._hash.hexdigest()}")
                self._part.unlink()  # there is nothing in it to resume from
                raise mismatch
            os.fsync(descriptor)
            crashpoint("blob.fetch:part-complete")
        finally:
            os.close(descriptor)

    def _rehash(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_size > self._blob.size:
            os.ftruncate(descriptor, 0)
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            self._origin.token.raise_if_cancelled()
            self._hash.update(chunk)
            self._offset += len(chunk)
            self._arrival.reached(self._part, self._offset)
        self._progress(self._offset)

    def _restart(self, descriptor: int) -> None:
        self._arrival.restarted()
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self._offset = 0

    def _receive(self, descriptor: int) -> None:
        retrier = self._origin.retrier()
        with retrier.stall_timer.waiting():
            while self._offset < self._blob.size:
                before = self._offset
                try:
                    self._receive_once(descriptor, retrier.stall_timer)
                except TransientError as failure:
                    if self._offset - before >= _WORTHWHILE_BYTES:
                        retrier.progressed()
                    retrier.failed(failure)

    def _receive_once(self, descriptor: int, stall_timer: StallTimer) -> None:
        body = self._origin.open_blob(self._blob.digest, self._offset, stall_timer)
        try:
            if body.start != self._offset:
                self._restart(descriptor)
            if body.length is not None and self._offset + body.length != self._blob.size:
                raise self._mismatch(f"the registry sends {self._offset + body.length} bytes")
            while chunk := body.read():
                if self._offset + len(chunk) > self._blob.size:
                    raise self._mismatch("the registry sends more bytes")
                _write_all(descriptor, chunk)
                self._hash.update(chunk)
                self._offset += len(chunk)
                self._arrival.reached(self._part, self._offset)
                self._progress(self._offset)
            if self._offset < self._blob.size:
                raise TransientError(self._mismatch("the transfer keeps ending too early", ErrorKind.UNAVAILABLE))
        finally:
            body.close()

    def _matches(self) -> bool:
        return f"sha256:{self._hash.hexdigest()}" == self._blob.digest

    def _mismatch(self, cause: str, kind: ErrorKind = ErrorKind.INVALID) -> BangerError:
        message = f'blob "{self._blob.digest}" of {self._blob.size} bytes cannot be fetched'
        hint = "nothing was kept of it: try again, or tell whoever runs the registry"
        return BangerError(kind, message, subject=self._blob.digest, cause=cause, hint=hint)


def _is_intact(path: Path, blob: Descriptor, token: CancelToken, arrival: Arrival) -> bool:
    """Hash what is there: a disk that lost it must not cost more than another transfer."""
    if _length(path) != blob.size:
        return False
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            token.raise_if_cancelled()
            digest.update(chunk)
            arrival.reached(path, file.tell())
    if f"sha256:{digest.hexdigest()}" == blob.digest:
        return True
    arrival.restarted()
    return False


def _publish(part: Path, path: Path) -> None:
    part.replace(path)
    crashpoint("blob.fetch:renamed")
    sync_path(path.parent)


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _exhausted(cause: str, directory: Path) -> BangerError:
    message = f'not enough room in "{directory}"'
    return BangerError(ErrorKind.EXHAUSTED, message, subject=str(directory), cause=cause, hint="banger system df")
