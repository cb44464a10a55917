"""Extended attributes: inside the inode where they fit, else in one block (*Extended Attributes*)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from banger.rootfs.ext4.checksum import crc32c
from banger.rootfs.ext4.skeleton import BLOCK_BYTES
from banger.rootfs.refusals import refused

_MAGIC = 0xEA020000
_ENTRY = struct.Struct("<BBHIII")
_BLOCK_HEADER_BYTES = 32
_CHECKSUM_OFFSET = 16
#: Name prefixes that Linux knows, and the numbers that stand for them.
_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_ACLS = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
#: Left out: what overlayfs would take for its own when the image becomes its lower layer, and labels of the build host.
_DROPPED = (b"trusted.overlay.", b"user.overlay.", b"security.selinux")
_ACL_WITH_ID = (0x02, 0x08)


class XattrSet:
    """A file's attributes in the form of the disk: short name, prefix number, value."""

    def __init__(self, xattrs: Mapping[bytes, bytes]) -> None:
        """Convert; names of namespaces that Linux does not have are left out, as a Linux host would.

        Raises:
            BangerError: ``invalid`` for a name that is too long or a malformed ACL.
        """
        found = []
        for name, value in xattrs.items():
            if name in _ACLS:
                found.append((_ACLS[name], b"", _acl_on_disk(value)))
            elif not name.startswith(_DROPPED):
                for prefix, index in _PREFIXES:
                    if name.startswith(prefix) and len(name) > len(prefix):
                        found.append((index, name[len(prefix) :], value))
        if any(len(name) > 255 for _, name, _ in found):
            raise refused("the name of an extended attribute is longer than 255 bytes")
        # The order that the kernel searches a block by.
        self._attributes = sorted(found, key=lambda attribute: (attribute[0], len(attribute[1]), attribute[1]))

    def __bool__(self) -> bool:
        return bool(self._attributes)

    def in_inode(self, room: int) -> bytes | None:
        """What follows the inode's fields, ``room`` bytes long; ``None`` if that is too little."""
        body = self._packed(room - 4, 0, hashed=False)
        return None if body is None else struct.pack("<I", _MAGIC) + body

    def block(self, number: int, seed: int) -> bytes:
        """A whole attribute block, to be written as block ``number``.

        Raises:
            BangerError: ``invalid`` if the attributes take more than one block.
        """
        body = self._packed(BLOCK_BYTES - _BLOCK_HEADER_BYTES, _BLOCK_HEADER_BYTES, hashed=True)
        if body is None:
            raise refused("the extended attributes of one file take more than 4 KiB, which ext4 cannot hold")
        total = 0
        for _, name, value in self._attributes:
            total = (total << 16 ^ total >> 16 ^ _hash(name, value)) & 0xFFFFFFFF
        raw = bytearray(struct.pack("<IIII", _MAGIC, 1, 1, total).ljust(_BLOCK_HEADER_BYTES, b"\0") + body)
        checksum = crc32c(crc32c(seed, struct.pack("<Q", number)), bytes(raw))
        struct.pack_into("<I", raw, _CHECKSUM_OFFSET, checksum)
        return bytes(raw)

    def _packed(self, room: int, base: int, *, hashed: bool) -> bytes | None:
        """Entries from the front and values from the back, whose offsets count from ``base`` before the entries."""
        raw = bytearray(room)
        front, back = 0, room
        for index, name, value in self._attributes:
            length = _ENTRY.size + (len(name) + 3 & ~3)
            back -= len(value) + 3 & ~3
            if front + length + 4 > back:  # four zero bytes end the entries
                return None
            entry_hash = _hash(name, value) if hashed else 0
            _ENTRY.pack_into(raw, front, len(name), index, back + base, 0, len(value), entry_hash)
            raw[front + _ENTRY.size : front + _ENTRY.size + len(name)] = name
            raw[back : back + len(value)] = value
            front += length
        return bytes(raw)


def _hash(name: bytes, value: bytes) -> int:
    """``ext4_xattr_hash_entry``, which takes the name's bytes as signed."""
    result = 0
    for byte in name:
        result = (result << 5 ^ result >> 27 ^ (byte - 256 if byte > 127 else byte)) & 0xFFFFFFFF
    for (word,) in struct.iter_unpack("<I", value.ljust(len(value) + 3 & ~3, b"\0")):
        result = (result << 16 ^ result >> 16 ^ word) & 0xFFFFFFFF
    return result


def _acl_on_disk(value: bytes) -> bytes:
    """A POSIX ACL as ``getxattr`` gives it (version 2, 8 bytes per entry), in ext4's own form (version 1).

    Ext4 keeps an id only in the entries of named users and groups.
    """
    if len(value) < 4 or (len(value) - 4) % 8 or struct.unpack_from("<I", value)[0] != 2:
        raise refused("a POSIX ACL is malformed")
    packed = bytearray(struct.pack("<I", 1))
    for tag, permissions, owner in struct.iter_unpack("<HHI", value[4:]):
        packed += struct.pack("<HH", tag, permissions)
        if tag in _ACL_WITH_ID:
            packed += struct.pack("<I", owner)
    return bytes(packed)
