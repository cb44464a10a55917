"""Directory blocks as untrusted input (*Linear Directories*, *Hash Tree Directories*).

The inner blocks of a hash tree look like blocks with one unused entry, which is how readers without hashes pass them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from banger.core.errors import BangerError
from banger.rootfs.refusals import refused

_ENTRY = struct.Struct("<IHBB")
_LARGEST_BLOCK = 64 << 10
_DOTS = (b".", b"..")

Entry = tuple[bytes, int, int]
"""Name, inode number, and file type as the entry claims (0 where file systems do not record it)."""


def parse_block(block: bytes, directory: int) -> Iterator[Entry]:
    """The entries of one block but for ``.`` and ``..``.

    Args:
        block: the whole block.
        directory: inode number, for messages.

    Raises:
        BangerError: ``invalid``, also while iterating, if the entries do not fill the block exactly, or a name is none.
    """
    at = 0
    while at < len(block):
        if at > len(block) - _ENTRY.size:
            raise _damaged(directory, "has an entry across the end of a block")
        number, stored_length, name_length, file_type = _ENTRY.unpack_from(block, at)
        length = _record_length(stored_length, len(block))
        if length % 4 or at + length > len(block) or _ENTRY.size + name_length > length:
            raise _damaged(directory, "has an entry with an impossible length")
        if number:
            name = block[at + _ENTRY.size : at + _ENTRY.size + name_length]
            if not name or b"/" in name or b"\0" in name:
                raise _damaged(directory, "has a name that no file can have")
            if name not in _DOTS:
                yield name, number, file_type
        at += length


def _record_length(stored: int, block_bytes: int) -> int:
    """Blocks of 64 KiB are one byte too long for 16 bits: there the lowest two bits are the highest."""
    if block_bytes < _LARGEST_BLOCK:
        return stored
    return block_bytes if stored in (0, 0xFFFF) else stored & 0xFFFC | (stored & 3) << 16


def _damaged(directory: int, what: str) -> BangerError:
    return refused(f"the directory with inode {directory} {what}: the file system is damaged")
