"""Writing file data: block-aligned, combined into large writes, with long runs of zeros as holes."""

from __future__ import annotations

import os
from collections.abc import Iterable

from banger.rootfs.ext4.blocks import FreeBlocks
from banger.rootfs.ext4.skeleton import BLOCK_BYTES
from banger.rootfs.nodes import Extent
from banger.rootfs.reader import ChunkReader

#: Files are looked at in pieces of this size, aligned in the file; one that is all zeros becomes a hole.
PIECE_BYTES = 64 << 10
#: The most blocks that one extent can hold (bit 15 marks preallocated ones).
_EXTENT_BLOCKS = 32768
_FLUSH_BYTES = 512 << 10
#: Linux takes 1024 buffers per gathering write; one more is needed for a padding.
_FLUSH_VIEWS = 1000
#: Every view keeps its whole chunk alive, so a flush is due after this many different ones.
_FLUSH_BUFFERS = 10
_ZERO_PIECE = bytes(PIECE_BYTES)
_ZEROS = memoryview(bytes(BLOCK_BYTES))


class DataWriter:
    """The data of one thread's files, one after the other. Used by a single thread."""

    def __init__(self, descriptor: int, free: FreeBlocks, writer: int) -> None:
        self._descriptor = descriptor
        self._free = free
        self._writer = writer
        self._next = self._end = 0  # its reservation: first unused block, and where it ends
        self._views: list[memoryview] = []
        self._pending_bytes = 0
        self._pending_block = 0
        self._buffers = 0
        self._last_buffer = b""

    def store(self, reader: ChunkReader, size: int) -> list[Extent]:
        """Write the next ``size`` bytes of ``reader`` as one file's data; returns its extents.

        Raises:
            BangerError: ``invalid`` if the data ends early.
            ImageFullError: if the file system is full.
            OSError: if the host's is.
        """
        extents: list[Extent] = []
        at = 0
        while at < size:
            length = min(PIECE_BYTES, size - at)
            buffer, start = reader.take(length)
            # startswith compares in place; the first byte alone already tells most pieces from zeros.
            if buffer[start] or not buffer.startswith(_ZERO_PIECE[:length], start):
                self._append(buffer, start, length, at // BLOCK_BYTES, extents)
            at += length
        return extents

    def store_pieces(self, pieces: Iterable[tuple[int, bytes]]) -> list[Extent]:
        """Write ascending pieces of one file's data, each beginning at a whole block; between them are holes.

        Raises as :meth:`store` does.
        """
        extents: list[Extent] = []
        for offset, data in pieces:
            if data.count(0) != len(data):
                self._append(data, 0, len(data), offset // BLOCK_BYTES, extents)
        return extents

    def close(self) -> None:
        """Write what is pending and give back the blocks that were reserved but not needed."""
        self.flush()
        self._free.give_back(self._writer, (self._next, self._end - self._next))
        self._next = self._end = 0

    def flush(self) -> None:
        """Write what is pending."""
        if self._views:
            write_all(self._descriptor, self._views, self._pending_block * BLOCK_BYTES)
        self._views = []
        self._pending_bytes = self._buffers = 0
        self._last_buffer = b""

    def _append(self, buffer: bytes, start: int, length: int, logical: int, extents: list[Extent]) -> None:
        """Queue a piece, which may have to be split where the reservation ends."""
        view = memoryview(buffer)[start : start + length]
        while length > 0:
            if self._next == self._end:
                self.flush()
                first, count = self._free.take(self._writer)
                self._next, self._end = first, first + count
            if not self._views:
                self._pending_block = self._next
            blocks = min(-(-length // BLOCK_BYTES), self._end - self._next)
            here = min(length, blocks * BLOCK_BYTES)
            self._views.append(view[:here])
            if padding := -here % BLOCK_BYTES:
                self._views.append(_ZEROS[:padding])
            _extend(extents, logical, self._next, blocks)
            self._pending_bytes += blocks * BLOCK_BYTES
            self._next += blocks
            logical += blocks
            view, length = view[here:], length - here
        if buffer is not self._last_buffer:
            self._last_buffer = buffer
            self._buffers += 1
        if self._pending_bytes >= _FLUSH_BYTES or len(self._views) >= _FLUSH_VIEWS or self._buffers >= _FLUSH_BUFFERS:
            self.flush()


def write_all(descriptor: int, views: list[memoryview], offset: int) -> None:
    """Write ``views`` one after the other from ``offset`` on, however often the system stops short."""
    written = os.pwritev(descriptor, views, offset)
    total = sum(map(len, views))
    if written == total:
        return
    rest = memoryview(b"".join(views))
    while written < total:
        written += os.pwrite(descriptor, rest[written:], offset + written)


def _extend(extents: list[Extent], logical: int, physical: int, count: int) -> None:
    if extents:
        last = extents[-1]
        follows = last.logical + last.length == logical and last.physical + last.length == physical
        if follows and last.length + count <= _EXTENT_BLOCKS:
            extents[-1] = Extent(last.logical, last.physical, last.length + count)
            return
    extents.append(Extent(logical, physical, count))
