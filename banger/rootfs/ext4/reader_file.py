"""The data of one file inside an image, as a raw stream."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from banger.rootfs.ext4.reader_device import BlockDevice
from banger.rootfs.nodes import Extent

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: The most that one read gives, whatever is asked for: what is in memory is this, not what an inode claims.
READ_BYTES = 256 << 10


class FileReader(io.RawIOBase):
    """Reads forward without holding the file's extents; seeking back starts over with them. Holes are zeros.

    Every method raises ``BangerError`` of kind ``invalid`` where the file system turns out to be damaged.
    """

    def __init__(self, device: BlockDevice, extents: Callable[[], Iterator[Extent]], size: int) -> None:
        """Read ``size`` bytes whose place ``extents`` tells, each time it is called, from the file's beginning."""
        self._device = device
        self._extents = extents
        self._size = size
        self._position = 0
        self._rest = extents()
        self._current: Extent | None = next(self._rest, None)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset; beyond the end there is nothing to read."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        target = base + offset
        if target < 0:
            raise ValueError(f"negative offset {target}")
        if target < self._position:
            self._rest = self._extents()
            self._current = next(self._rest, None)
        self._position = target
        return target

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill some of ``buffer``; 0 at the end."""
        data = self.read_some(memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def read_some(self, limit: int = READ_BYTES) -> bytes:
        """Between 1 and ``limit`` bytes, never across the edge of a hole and at most 256 KiB; none at the end."""
        limit = min(limit, READ_BYTES, self._size - self._position)
        if limit <= 0:
            return b""
        extent = self._extent_ahead()
        block_bytes = self._device.block_bytes
        if extent is None:
            data = bytes(limit)
        elif (gap := extent.logical * block_bytes - self._position) > 0:
            data = bytes(min(limit, gap))
        else:
            # Whole blocks of a piece that starts anywhere in a block.
            skipped, inside = divmod(-gap, block_bytes)
            count = min(-(-(inside + limit) // block_bytes), extent.length - skipped)
            data = self._device.read_blocks(extent.physical + skipped, count)[inside : inside + limit]
        self._position += len(data)
        return data

    def _extent_ahead(self) -> Extent | None:
        """The extent at the position, or the next one behind it."""
        block = self._position // self._device.block_bytes
        while self._current is not None and self._current.logical + self._current.length <= block:
            self._current = next(self._rest, None)
        return self._current
