"""Compressing and hashing a blob while it is written."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

import zstandard

from banger.core.cancel import CancelToken

_LEVEL = 3
#: More would be idle: the reader in front of the compressor is one thread.
_MOST_THREADS = 4


class ZstdBlob:
    """A write-only file: what is written arrives at ``sink`` as one zstd frame (RFC 8878).

    Equal input gives equal output on every host: the multi-threaded compressor cuts its jobs by size only, and is used
    even where there is one processor.
    """

    def __init__(self, sink: BinaryIO, token: CancelToken) -> None:
        """Begin a frame; ``sink`` is written from where it stands and stays open."""
        threads = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
        compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=threads, write_checksum=True)
        self._compress = compressor.compressobj()
        self._sink = sink
        self._token = token
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        """Take ``data``; raises ``cancelled`` once nobody wants it any more."""
        self._token.raise_if_cancelled()
        self._put(self._compress.compress(data))
        return len(data)

    def finish(self) -> tuple[str, int]:
        """End the frame; the blob's ``sha256:…`` and size."""
        self._put(self._compress.flush())
        return f"sha256:{self._digest.hexdigest()}", self._size

    def _put(self, packed: bytes) -> None:
        if packed:
            self._sink.write(packed)
            self._digest.update(packed)
            self._size += len(packed)
