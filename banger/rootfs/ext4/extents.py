"""Extent trees: which blocks of the image hold which blocks of a file (*Extent Tree* of the kernel's documentation)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from banger.rootfs.ext4.checksum import crc32c
from banger.rootfs.ext4.skeleton import BLOCK_BYTES
from banger.rootfs.nodes import Extent

_MAGIC = 0xF30A
_HEADER = struct.Struct("<HHHHI")
_LEAF = struct.Struct("<IHHI")
_INDEX = struct.Struct("<IIHH")
_ROOT_ENTRIES = 4
#: A block holds a header, these entries and a checksum.
BLOCK_ENTRIES = (BLOCK_BYTES - _HEADER.size - 4) // _LEAF.size
_ROOT_BYTES = _HEADER.size + _ROOT_ENTRIES * _LEAF.size


def extent_tree(extents: Sequence[Extent], inode_seed: int, store: Callable[[bytes], int]) -> tuple[bytes, int]:
    """The root of the tree for an inode's ``i_block``.

    Args:
        extents: in ascending order of ``logical``.
        inode_seed: start of the checksums of this inode's blocks.
        store: writes one further block of the tree and returns its number.

    Returns:
        60 bytes, and how many further blocks the tree took: none for up to 4 extents, one per 340 above.
    """
    entries = [_LEAF.pack(e.logical, e.length, e.physical >> 32, e.physical & 0xFFFFFFFF) for e in extents]
    firsts = [extent.logical for extent in extents]
    depth = stored = 0
    while len(entries) > _ROOT_ENTRIES:
        above = []
        for at in range(0, len(entries), BLOCK_ENTRIES):
            part = entries[at : at + BLOCK_ENTRIES]
            number = store(_block(part, depth, inode_seed))
            above.append(_INDEX.pack(firsts[at], number & 0xFFFFFFFF, number >> 32, 0))
        firsts = firsts[::BLOCK_ENTRIES]
        entries = above
        stored += len(above)
        depth += 1
    root = _HEADER.pack(_MAGIC, len(entries), _ROOT_ENTRIES, depth, 0) + b"".join(entries)
    return root.ljust(_ROOT_BYTES, b"\0"), stored


def _block(entries: Sequence[bytes], depth: int, inode_seed: int) -> bytes:
    header = _HEADER.pack(_MAGIC, len(entries), BLOCK_ENTRIES, depth, 0)
    body = (header + b"".join(entries)).ljust(BLOCK_BYTES - 4, b"\0")
    return body + struct.pack("<I", crc32c(inode_seed, body))


def inline_extents(block: bytes) -> list[Extent]:
    """The extents of an ``i_block`` without further blocks, such as mke2fs gives its directories."""
    count = _HEADER.unpack_from(block)[1]
    found = []
    for index in range(count):
        logical, length, high, low = _LEAF.unpack_from(block, _HEADER.size + index * _LEAF.size)
        found.append(Extent(logical, high << 32 | low, length))
    return found
