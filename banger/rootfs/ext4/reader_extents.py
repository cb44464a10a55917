"""Extent trees as untrusted input (*Extent Tree*): walked in order, bounded by what is really on the disk.

Every entry must lie behind the one before it. So no block of a tree can be visited twice, a tree cannot loop, and the
work is bounded by the size of the image's own data; nothing but the nodes on the way down is held in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from banger.core.errors import BangerError
from banger.rootfs.ext4.reader_device import BlockDevice
from banger.rootfs.nodes import Extent
from banger.rootfs.refusals import refused

_MAGIC = 0xF30A
_HEADER = struct.Struct("<HHHHI")
_LEAF = struct.Struct("<IHHI")
_INDEX = struct.Struct("<IIHH")
#: ``EXT4_MAX_EXTENT_DEPTH``; five levels of 4 KiB blocks reach every block that a file can have.
_MAX_DEPTH = 5
#: A larger length means: allocated, but reads as zeros.
_MAX_WRITTEN = 32768
_MAX_LOGICAL = 1 << 32


class ExtentTree:
    """The tree of one inode."""

    def __init__(self, device: BlockDevice, number: int, root: bytes) -> None:
        self._device = device
        self._number = number
        self._root = root
        self._next = 0  # every entry has to begin here or later

    def extents(self) -> Iterator[Extent]:
        """The extents that hold data, in the order of the file; to be called once.

        Raises:
            BangerError: ``invalid`` if the tree is damaged, also while iterating.
        """
        depth = _HEADER.unpack_from(self._root)[3]
        if depth > _MAX_DEPTH:
            raise self._damaged("is too deep")
        return self._node(self._root, depth)

    def _node(self, node: bytes, depth: int) -> Iterator[Extent]:
        magic, count, _, stated_depth, _ = _HEADER.unpack_from(node)
        if magic != _MAGIC or stated_depth != depth:
            raise self._damaged("has a malformed block")
        if count > (len(node) - _HEADER.size) // _LEAF.size or (not count and node is not self._root):
            raise self._damaged("has a block with an impossible number of entries")
        for index in range(count):
            offset = _HEADER.size + index * _LEAF.size
            if depth:
                logical, low, high, _ = _INDEX.unpack_from(node, offset)
                self._advance(logical, 0)
                yield from self._node(self._device.read_blocks(low | high << 32, 1), depth - 1)
            elif (extent := self._leaf(node, offset)) is not None:
                yield extent

    def _leaf(self, node: bytes, offset: int) -> Extent | None:
        """The extent there, or ``None`` if it reads as zeros."""
        logical, length, high, low = _LEAF.unpack_from(node, offset)
        physical, written = high << 32 | low, length <= _MAX_WRITTEN
        count = length if written else length - _MAX_WRITTEN
        self._advance(logical, count)
        self._device.check_range(physical, count)
        return Extent(logical, physical, count) if written else None

    def _advance(self, logical: int, count: int) -> None:
        if logical < self._next or logical + count > _MAX_LOGICAL:
            raise self._damaged("is out of order")
        self._next = logical + count

    def _damaged(self, what: str) -> BangerError:
        return refused(f"the extent tree of inode {self._number} {what}: the file system is damaged")
