"""Files of web servers whose SHA-256 is known: resumed, verified, and not fetched again when they are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.units import format_size
from banger.oci.blobs import BlobStore
from banger.oci.documents import Descriptor


class Progress(Protocol):
    """Told the bytes there and the bytes wanted."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """Report."""
        ...


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """What is wanted.

    Attributes:
        url: where it is, without a fragment.
        digest: ``sha256:…``.
        most_bytes: no honest file is larger.
        what: it is, for the error of one that is.
    """

    url: str
    digest: str
    most_bytes: int
    what: str


class PinnedDownloads:
    """Downloads through the blob store."""

    def __init__(self, blobs: BlobStore, config: Config) -> None:
        """Connects to nothing.

        Args:
            blobs: where they are kept; by their digest, so that nothing is fetched twice.
            config: ``registry.insecure`` lists the hosts that may be talked to over plain http.
        """
        self._blobs = blobs
        self._config = config

    def fetch(self, file: PinnedFile, operation: Operation, progress: Progress) -> Path:
        """The path of the verified file, which is leased to ``operation``.

        Raises:
            BangerError: ``denied`` for plain http, ``not_found`` or ``unavailable`` as the server says, ``invalid`` for
                another content or too much of it, ``exhausted`` for a full disk.
        """
        # requests takes a quarter of a second to import: the daemon's start must not wait for it.
        from banger.oci.artifact_url import UrlOrigin  # noqa: PLC0415
        from banger.oci.registry import Timeouts  # noqa: PLC0415

        insecure = self._config.text("registry.insecure")
        timeouts = Timeouts.patient(self._config.seconds("registry.stall_timeout_s"))
        origin = UrlOrigin(file.url, operation.token, insecure=insecure, note=operation.note, timeouts=timeouts)
        size = self._size(file, origin.size)
        if size > file.most_bytes:
            message = f'"{file.url}" is larger than {format_size(file.most_bytes)}, more than any {file.what}'
            raise BangerError(ErrorKind.INVALID, message, subject=file.url, cause=f"{size} bytes")
        blob = Descriptor("application/octet-stream", file.digest, size)
        self._blobs.lease(operation.id, [blob])
        self._blobs.require_room([blob])
        return self._blobs.fetch(blob, origin, lambda done: progress(done, size))

    def _size(self, file: PinnedFile, ask: Callable[[], int]) -> int:
        present = self._blobs.path(file.digest)
        return present.stat().st_size if present.exists() else ask()
