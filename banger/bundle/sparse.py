"""The sparse stream: a disk image without its zeros; equal contents give equal bytes.

All numbers are little-endian::

    header   8 bytes magic "bgsparse", u32 version (1), u32 block size (4096), u64 size of the image in bytes
    extent   u64 offset, u64 length, then length bytes of data                                  (any number of these)
    end      u64 2^64-1, u64 sum of all lengths, 32 bytes SHA-256 of everything before them (its own first 16 too)

The image is cut into windows of 1 MiB. In every window each maximal run of 4 KiB blocks that are not all zero is one
extent; the last block of an image may be shorter. So the stream does not depend on where the file had its holes, can be
written and read in one pass with one window in memory, and its digest names the content of the image.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from banger.core.cancel import CancelToken
from banger.rootfs.reader import ChunkReader
from banger.rootfs.refusals import refused

MAGIC = b"bgsparse"
VERSION = 1
BLOCK_BYTES = 4096
WINDOW_BYTES = 1 << 20

_HEADER = struct.Struct("<8sIIQ")
_EXTENT = struct.Struct("<QQ")
_END = 2**64 - 1
_DIGEST_BYTES = 32
_ZEROS = bytes(WINDOW_BYTES)
_ZERO_BLOCK = bytes(BLOCK_BYTES)

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class SparseStats:
    """What a stream holds.

    Attributes:
        size_bytes: of the image.
        data_bytes: of all extents.
        sha256: hex digest in the end record: equal for images of equal content.
    """

    size_bytes: int
    data_bytes: int
    sha256: str


def encode(
    descriptor: int, write: Callable[[bytes], object], token: CancelToken, progress: Progress = lambda _: None
) -> SparseStats:
    """Write the stream of an image; holes are not even read.

    Args:
        descriptor: the image, open for reading; nobody may write to it meanwhile.
        write: takes the stream piece by piece, at most a window at a time.
        token: cancels.
        progress: told how far into the image it has come, in bytes.

    Raises:
        BangerError: ``cancelled``.
        OSError: the image cannot be read.
    """
    digest = hashlib.sha256()

    def put(data: bytes) -> None:
        digest.update(data)
        write(data)

    size, data_bytes = os.fstat(descriptor).st_size, 0
    put(_HEADER.pack(MAGIC, VERSION, BLOCK_BYTES, size))
    for offset in _windows_with_data(descriptor, size):
        token.raise_if_cancelled()
        window = _read_window(descriptor, offset, min(WINDOW_BYTES, size - offset))
        for start, end in _runs(window):
            put(_EXTENT.pack(offset + start, end - start))
            put(window[start:end])
            data_bytes += end - start
        progress(offset + len(window))
    put(_EXTENT.pack(_END, data_bytes))
    write(digest.digest())
    progress(size)
    return SparseStats(size, data_bytes, digest.hexdigest())


def decode(
    chunks: Iterator[bytes],
    descriptor: int,
    token: CancelToken,
    *,
    size_bytes: int,
    progress: Progress = lambda _: None,
) -> SparseStats:
    """Write the image that a stream holds. Memory is bounded by one window, the disk by ``size_bytes``.

    Args:
        chunks: the stream, taken for hostile.
        descriptor: an empty file, open for writing. It becomes as long as the image; what is zero becomes a hole.
        token: cancels.
        size_bytes: how long the image must be.
        progress: told how far into the image it has come, in bytes.

    Raises:
        BangerError: ``invalid`` for anything that is not exactly one well-formed stream of that size; ``cancelled``.
        OSError: the image cannot be written.
    """
    reader = _HashingReader(chunks)
    magic, version, block_bytes, size = _HEADER.unpack(reader.read(_HEADER.size))
    if magic != MAGIC:
        raise refused("this is not a sparse stream")
    if (version, block_bytes) != (VERSION, BLOCK_BYTES):
        raise refused(f"the sparse stream is of version {version} with blocks of {block_bytes}, which is not supported")
    if size != size_bytes:
        raise refused(f"the sparse stream is of an image of {size} bytes, not of {size_bytes}")
    os.ftruncate(descriptor, size)
    position = data_bytes = 0
    while True:
        token.raise_if_cancelled()
        offset, length = _EXTENT.unpack(reader.read(_EXTENT.size))
        if offset == _END:
            break
        _check_extent(offset, length, position, size)
        _write_at(descriptor, reader.read(length), offset)
        position = offset + length
        data_bytes += length
        progress(position)
    if length != data_bytes:
        raise refused(f"the sparse stream holds {data_bytes} bytes of data and says {length}")
    sha256 = reader.hexdigest()
    if reader.read(_DIGEST_BYTES).hex() != sha256:
        raise refused("the sparse stream does not match the sum at its end")
    if not reader.at_end():
        raise refused("the sparse stream is followed by something else")
    progress(size)
    return SparseStats(size, data_bytes, sha256)


class _HashingReader(ChunkReader):
    """Hashes what is read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__(chunks)
        self._digest = hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = super().read(count)
        self._digest.update(data)
        return data

    def hexdigest(self) -> str:
        """Of everything read so far."""
        return self._digest.hexdigest()


def _check_extent(offset: int, length: int, position: int, size: int) -> None:
    """Refuse an extent that :func:`encode` would not write there; what it holds may be anything."""
    end = offset + length
    if offset < position or offset % BLOCK_BYTES:
        raise refused(f"the sparse stream has an extent at {offset}, out of order or off its block")
    if length == 0 or end > size or (end % BLOCK_BYTES and end != size):
        raise refused(f"the sparse stream has an extent of {length} bytes at {offset} of an image of {size}")
    if offset // WINDOW_BYTES != (end - 1) // WINDOW_BYTES:
        raise refused(f"the sparse stream has an extent across windows at {offset}")


def _windows_with_data(descriptor: int, size: int) -> Iterator[int]:
    """Offsets of the windows that are not all hole (``lseek(2)``, SEEK_DATA)."""
    position = 0
    while position < size:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        offset = data - data % WINDOW_BYTES
        yield offset
        position = offset + WINDOW_BYTES


def _read_window(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            raise OSError(errno.EIO, "the image became shorter while it was read")
        data += more
    return data


def _runs(window: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each run of blocks that are not all zero."""
    if window == _ZEROS[: len(window)]:
        return
    start = -1
    for at in range(0, len(window), BLOCK_BYTES):
        block = window[at : at + BLOCK_BYTES]
        if block == _ZERO_BLOCK[: len(block)]:
            if start >= 0:
                yield start, at
            start = -1
        elif start < 0:
            start = at
    if start >= 0:
        yield start, len(window)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
