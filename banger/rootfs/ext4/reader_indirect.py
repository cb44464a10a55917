"""Indirect block maps, as ext2 and ext3 list a file's blocks (*Direct/Indirect Block Addressing*)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from banger.rootfs.ext4.reader_device import BlockDevice
from banger.rootfs.nodes import Extent
from banger.rootfs.refusals import refused

_DIRECT = 12
_LEVELS = 3
_MAX_LOGICAL = 1 << 32
#: Blocks that list others, per file: enough for 1 TiB in blocks of 4 KiB.
_MAX_NODES = 1 << 18


class BlockMap:
    """The block map of one inode."""

    def __init__(self, device: BlockDevice, number: int, block_field: bytes, size: int) -> None:
        """Prepare to read the map.

        Args:
            device: the image.
            number: the inode, for messages.
            block_field: the 15 block numbers of ``i_block``.
            size: of the file, in bytes: blocks beyond it are not looked for.
        """
        self._device = device
        self._number = number
        self._pointers = struct.unpack("<15I", block_field)
        self._fan_out = device.block_bytes // 4
        self._blocks = -(-size // device.block_bytes)
        self._zeros = bytes(device.block_bytes)
        self._seen: set[int] = set()

    def extents(self) -> Iterator[Extent]:
        """The extents that hold data, in the order of the file.

        Raises:
            BangerError: ``invalid`` if the map is damaged, also while iterating.
        """
        if self._blocks > _MAX_LOGICAL:
            raise refused(f"inode {self._number} is larger than any file: the file system is damaged")
        start = physical = length = 0
        for logical, block in self._mapped():
            if length and block == physical + length and logical == start + length:
                length += 1
                continue
            if length:
                yield Extent(start, physical, length)
            start, physical, length = logical, block, 1
        if length:
            yield Extent(start, physical, length)

    def _mapped(self) -> Iterator[tuple[int, int]]:
        """Every block that is no hole: number in the file and in the image."""
        for logical, block in enumerate(self._pointers[: min(_DIRECT, self._blocks)]):
            if block:
                self._device.check_range(block, 1)
                yield logical, block
        logical = _DIRECT
        for level in range(1, _LEVELS + 1):
            if logical >= self._blocks:
                return
            yield from self._below(self._pointers[_DIRECT + level - 1], level, logical)
            logical += self._fan_out**level

    def _below(self, node: int, level: int, logical: int) -> Iterator[tuple[int, int]]:
        """What the indirect block ``node`` lists, whose first entry is for block ``logical`` of the file."""
        if not node:
            return
        # A block that lists others is used once only; without this rule a few of them make terabytes.
        if node in self._seen:
            raise refused(f"the block map of inode {self._number} uses a block twice: the file system is damaged")
        if len(self._seen) >= _MAX_NODES:
            raise refused(f"the block map of inode {self._number} is larger than banger reads")
        self._seen.add(node)
        raw = self._device.read_blocks(node, 1)
        if raw == self._zeros:  # costs an attacker no disk, so it has to be cheap here too
            return
        step = self._fan_out ** (level - 1)
        for block in struct.unpack(f"<{self._fan_out}I", raw):
            if logical >= self._blocks:
                return
            if block and level > 1:
                yield from self._below(block, level - 1, logical)
            elif block:
                self._device.check_range(block, 1)
                yield logical, block
            logical += step
