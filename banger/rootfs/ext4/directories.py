"""Directory blocks: linear ones, which are legal at any size (*Linear (Classic) Directories*)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from banger.rootfs.ext4.checksum import crc32c
from banger.rootfs.ext4.skeleton import BLOCK_BYTES
from banger.rootfs.nodes import Device, Directory, Fifo, Node, Symlink

_ENTRY = struct.Struct("<IHBB")
#: Looks like an unused entry; holds the block's checksum.
_TAIL = struct.Struct("<IHBBI")
_ROOM = BLOCK_BYTES - _TAIL.size


def directory_data(directory: Directory, inode_seed: int) -> bytes:
    """All blocks of a directory whose entries have their inode numbers."""
    blocks: list[bytes] = []
    block = bytearray()
    last = 0
    for number, kind, name in _listing(directory):
        length = _ENTRY.size + (len(name) + 3 & ~3)
        if len(block) + length > _ROOM:
            blocks.append(_sealed(block, last, inode_seed))
            block = bytearray()
        last = len(block)
        block += _ENTRY.pack(number, length, len(name), kind)
        block += name.ljust(length - _ENTRY.size, b"\0")
    blocks.append(_sealed(block, last, inode_seed))
    return b"".join(blocks)


def _listing(directory: Directory) -> Iterable[tuple[int, int, bytes]]:
    yield directory.number, 2, b"."
    yield directory.parent.number, 2, b".."
    for name, node in directory.entries.items():
        yield node.number, _file_type(node), name


def _sealed(block: bytearray, last: int, inode_seed: int) -> bytes:
    """``block`` with its last entry stretched over the free room, and the checksum behind it."""
    struct.pack_into("<H", block, last + 4, _ROOM - last)
    body = bytes(block.ljust(_ROOM, b"\0"))
    return body + _TAIL.pack(0, _TAIL.size, 0, 0xDE, crc32c(inode_seed, body))


def _file_type(node: Node) -> int:
    if isinstance(node, Directory):
        return 2
    if isinstance(node, Symlink):
        return 7
    if isinstance(node, Device):
        return 4 if node.is_block else 3
    return 5 if isinstance(node, Fifo) else 1
