"""Extended attributes as untrusted input (*Extended Attributes*): from the disk's form into that of system calls."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from banger.core.errors import BangerError
from banger.rootfs.refusals import refused

_MAGIC = 0xEA020000
_ENTRY = struct.Struct("<BBHIII")
_BLOCK_HEADER_BYTES = 32
_PREFIXES: Mapping[int, bytes] = {1: b"user.", 4: b"trusted.", 6: b"security."}
_ACLS: Mapping[int, bytes] = {2: b"system.posix_acl_access", 3: b"system.posix_acl_default"}
#: Tags of POSIX ACL entries, and those of them that name somebody.
_ACL_TAGS = frozenset({0x01, 0x02, 0x04, 0x08, 0x10, 0x20})
_ACL_NAMED = frozenset({0x02, 0x08})
_ACL_NOBODY = 0xFFFFFFFF


def inode_xattrs(tail: bytes, number: int) -> dict[bytes, bytes]:
    """The attributes in what follows an inode's fields; raises ``invalid``."""
    if len(tail) < 4 or struct.unpack_from("<I", tail) != (_MAGIC,):
        return {}
    return _parse(tail[4:], 0, number)


def block_xattrs(block: bytes, number: int) -> dict[bytes, bytes]:
    """The attributes in the attribute block of inode ``number``; raises ``invalid``."""
    if struct.unpack_from("<I", block) != (_MAGIC,):
        raise _damaged(number)
    return _parse(block, _BLOCK_HEADER_BYTES, number)


def _parse(raw: bytes, at: int, number: int) -> dict[bytes, bytes]:
    """Entries from ``at`` on, whose values are offsets into ``raw``; names of unknown namespaces are left out."""
    found: dict[bytes, bytes] = {}
    total = 0
    while raw[at : at + 4] != bytes(4):
        if at + _ENTRY.size > len(raw):
            raise _damaged(number)
        name_length, index, offset, foreign_inode, size, _ = _ENTRY.unpack_from(raw, at)
        name = raw[at + _ENTRY.size : at + _ENTRY.size + name_length]
        at += _ENTRY.size + (name_length + 3 & ~3)
        # Values do not share bytes; without this rule one block could be blown up to hundreds of megabytes.
        total += size
        if foreign_inode or at > len(raw) or offset + size > len(raw) or total > len(raw) or b"\0" in name:
            raise _damaged(number)
        value = raw[offset : offset + size]
        if index in _ACLS and not name:
            found[_ACLS[index]] = _acl(value, number)
        elif index in _PREFIXES and name:
            found[_PREFIXES[index] + name] = value
    return found


def _acl(value: bytes, number: int) -> bytes:
    """A POSIX ACL of ext4 (version 1, an id only where one is named) as ``getxattr`` gives it (version 2)."""
    if len(value) < 4 or struct.unpack_from("<I", value) != (1,):
        raise _damaged(number)
    packed, at = bytearray(struct.pack("<I", 2)), 4
    while at < len(value):
        if at + 4 > len(value):
            raise _damaged(number)
        tag, permissions = struct.unpack_from("<HH", value, at)
        at += 4
        owner = _ACL_NOBODY
        if tag in _ACL_NAMED:
            if at + 4 > len(value):
                raise _damaged(number)
            (owner,) = struct.unpack_from("<I", value, at)
            at += 4
        if tag not in _ACL_TAGS:
            raise _damaged(number)
        packed += struct.pack("<HHI", tag, permissions, owner)
    return bytes(packed)


def _damaged(number: int) -> BangerError:
    return refused(f"the extended attributes of inode {number} are damaged")
