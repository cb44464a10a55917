"""The superblock and the group descriptors of an empty file system: its layout, and the counters updated at the end.

Field offsets: *Super Block* and *Block Group Descriptors* of the kernel's ext4 documentation.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.ext4.checksum import INITIAL, crc32c
from banger.rootfs.ext4.skeleton import BLOCK_BYTES, INODE_BYTES

_SUPERBLOCK_OFFSET = 1024
_SUPERBLOCK_BYTES = 1024
_MAGIC = 0xEF53
#: filetype, extent, 64bit, flex_bg: exactly what :mod:`skeleton` asks for; the writer knows no other layout.
_INCOMPAT = 0x0002 | 0x0040 | 0x0080 | 0x0200
_METADATA_CSUM = 0x0400
_DESCRIPTOR_BYTES = 64
_INODE_UNINIT, _BLOCK_UNINIT = 0x1, 0x2


@dataclass(slots=True)
class Group:
    """One block group's descriptor; 64-bit fields are joined, counts may be changed."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    free_blocks: int
    free_inodes: int
    directories: int
    flags: int
    block_bitmap_checksum: int
    inode_bitmap_checksum: int
    unused_inodes: int

    _FORMAT = struct.Struct("<IIIHHHHIHHHHIIIHHHHIHHI")

    @classmethod
    def unpack(cls, raw: bytes) -> Group:
        """Read a descriptor."""
        low = cls._FORMAT.unpack(raw)
        return cls(
            block_bitmap=low[0] | low[12] << 32,
            inode_bitmap=low[1] | low[13] << 32,
            inode_table=low[2] | low[14] << 32,
            free_blocks=low[3] | low[15] << 16,
            free_inodes=low[4] | low[16] << 16,
            directories=low[5] | low[17] << 16,
            flags=low[6],
            block_bitmap_checksum=low[8] | low[20] << 16,
            inode_bitmap_checksum=low[9] | low[21] << 16,
            unused_inodes=low[10] | low[18] << 16,
        )

    def pack(self, seed: int, index: int) -> bytes:
        """The descriptor of group ``index`` with its checksum."""
        pointers = (self.block_bitmap, self.inode_bitmap, self.inode_table)
        counts = (self.free_blocks, self.free_inodes, self.directories)
        sums = (self.block_bitmap_checksum, self.inode_bitmap_checksum)
        raw = bytearray(
            self._FORMAT.pack(
                *(pointer & 0xFFFFFFFF for pointer in pointers),
                *(count & 0xFFFF for count in counts),
                self.flags,
                0,  # exclude bitmap of snapshots, never used
                *(value & 0xFFFF for value in sums),
                self.unused_inodes & 0xFFFF,
                0,
                *(pointer >> 32 for pointer in pointers),
                *(count >> 16 for count in counts),
                self.unused_inodes >> 16,
                0,
                *(value >> 16 for value in sums),
                0,
            )
        )
        checksum = crc32c(crc32c(seed, struct.pack("<I", index)), bytes(raw))
        struct.pack_into("<H", raw, 30, checksum & 0xFFFF)
        return bytes(raw)

    @property
    def has_block_bitmap(self) -> bool:
        """False if the bitmap on disk is not initialised and follows from the layout alone."""
        return not self.flags & _BLOCK_UNINIT

    def mark_initialised(self, *, blocks: bool, inodes: bool) -> None:
        """Say that a bitmap has been written."""
        self.flags &= ~(_BLOCK_UNINIT * blocks | _INODE_UNINIT * inodes)


class Geometry:
    """An empty file system as mke2fs left it.

    Attributes:
        seed: start of every checksum in this file system.
        blocks, inodes: how many there are.
        blocks_per_group, inodes_per_group: inode and block numbers are divided by these.
        first_inode: the first one that is not reserved.
        groups: the block groups.
    """

    def __init__(self, descriptor: int) -> None:
        """Read from an open image.

        Raises:
            BangerError: ``internal`` if it is not laid out as :mod:`skeleton` asks for.
        """
        self._descriptor = descriptor
        self._raw = bytearray(os.pread(descriptor, _SUPERBLOCK_BYTES, _SUPERBLOCK_OFFSET))
        incompat, read_only = self._u32(0x60), self._u32(0x64)
        layout = (self._u16(0x38), incompat, self._u16(0xFE), self._u16(0x58), 1024 << self._u32(0x18))
        expected = (_MAGIC, _INCOMPAT, _DESCRIPTOR_BYTES, INODE_BYTES, BLOCK_BYTES)
        if layout != expected or not read_only & _METADATA_CSUM:
            raise BangerError(ErrorKind.INTERNAL, "mke2fs made a layout that was not asked for", cause=str(layout))
        self.blocks = self._u32(0x4) | self._u32(0x150) << 32
        self.inodes = self._u32(0x0)
        self.blocks_per_group = self._u32(0x20)
        self.inodes_per_group = self._u32(0x28)
        self.first_inode = self._u32(0x54)
        self.reserved_descriptor_blocks = self._u16(0xCE)
        self.seed = crc32c(INITIAL, bytes(self._raw[0x68:0x78]))
        count = -(-self.blocks // self.blocks_per_group)
        table = os.pread(descriptor, count * _DESCRIPTOR_BYTES, BLOCK_BYTES)
        self.groups = [
            Group.unpack(table[at : at + _DESCRIPTOR_BYTES]) for at in range(0, len(table), _DESCRIPTOR_BYTES)
        ]

    def group_blocks(self, index: int) -> int:
        """How many blocks group ``index`` has; the last one may be short."""
        return min(self.blocks_per_group, self.blocks - index * self.blocks_per_group)

    def metadata_runs(self) -> Iterator[tuple[int, int]]:
        """Every ``(first block, count)`` that the layout itself takes, journal and resize inode not included."""
        table_blocks = self.inodes_per_group * INODE_BYTES // BLOCK_BYTES
        descriptor_blocks = -(-len(self.groups) * _DESCRIPTOR_BYTES // BLOCK_BYTES)
        for index, group in enumerate(self.groups):
            if _has_superblock(index):
                head = 1 + descriptor_blocks + self.reserved_descriptor_blocks
                yield index * self.blocks_per_group, head
            yield group.block_bitmap, 1
            yield group.inode_bitmap, 1
            yield group.inode_table, table_blocks

    def read_inode(self, number: int) -> bytes:
        """An inode of the first group, as it is on disk."""
        offset = self.groups[0].inode_table * BLOCK_BYTES + (number - 1) * INODE_BYTES
        return os.pread(self._descriptor, INODE_BYTES, offset)

    def write_back(self) -> None:
        """Write descriptors and superblock with what the groups count now. Backups keep mke2fs's own counts."""
        packed = b"".join(group.pack(self.seed, index) for index, group in enumerate(self.groups))
        os.pwrite(self._descriptor, packed, BLOCK_BYTES)
        free_blocks = sum(group.free_blocks for group in self.groups)
        struct.pack_into("<I", self._raw, 0xC, free_blocks & 0xFFFFFFFF)
        struct.pack_into("<I", self._raw, 0x158, free_blocks >> 32)
        struct.pack_into("<I", self._raw, 0x10, sum(group.free_inodes for group in self.groups))
        struct.pack_into("<I", self._raw, 0x3FC, crc32c(INITIAL, bytes(self._raw[:0x3FC])))
        os.pwrite(self._descriptor, self._raw, _SUPERBLOCK_OFFSET)

    def _u32(self, offset: int) -> int:
        return int.from_bytes(self._raw[offset : offset + 4], "little")

    def _u16(self, offset: int) -> int:
        return int.from_bytes(self._raw[offset : offset + 2], "little")


def _has_superblock(group: int) -> bool:
    """``sparse_super``: copies are kept in groups 0, 1 and the powers of 3, 5 and 7."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False
