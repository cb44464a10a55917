"""Inodes as untrusted input: their location and fields (*Index Nodes*, *Inode Timestamps*)."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

from banger.rootfs.ext4.geometry import Group
from banger.rootfs.ext4.inodes import BLOCK_FIELD_BYTES
from banger.rootfs.ext4.metadata import ROOT_INODE
from banger.rootfs.ext4.reader_device import BlockDevice
from banger.rootfs.refusals import refused

_KINDS = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK})
#: mode, uid, size, atime, ctime, mtime, dtime, gid, links, blocks, flags.
_HEAD = struct.Struct("<HHIIIiIHHII")
_BLOCK_OFFSET = 40
#: generation, ACL block, size high, fragment, blocks high, ACL block high, uid high, gid high.
_TAIL = struct.Struct("<IIIIHHHH")
_TAIL_OFFSET = 100
_CLASSIC_BYTES = 128
_MTIME_EXTRA_OFFSET = 136
_GROUP_BYTES = 64
_EXTENTS_FLAG = 0x80000
#: Data where this reader would not look for it: in a foreign inode, or among the attributes.
_REFUSED_FLAGS = {0x800: "encrypt", 0x200000: "ea_inode", 0x10000000: "inline_data"}
#: Group descriptors kept in memory, 128 TiB worth of them at most.
_CACHED_GROUPS = 4096


@dataclass(frozen=True, slots=True)
class Inode:
    """One file, directory, link, device, pipe or socket.

    Attributes:
        mode: type and permission bits, as ``stat`` has them.
        size: bytes of data; of a directory, of its blocks; of a symbolic link, of its target.
        mtime_ns: nanoseconds since 1970, may be negative.
        nlink: how many names it claims to have.
        rdev: major and minor number of a device, else zeros.
        has_extents: the blocks are listed by an extent tree, not by an indirect block map.
        block_field: the 60 bytes of ``i_block``.
        xattr_block: number of its attribute block, 0 for none.
        tail: what follows the inode's fields: attributes inside the inode, or nothing.
    """

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    nlink: int
    rdev: tuple[int, int]
    has_extents: bool
    block_field: bytes
    xattr_block: int
    tail: bytes

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """True for a symbolic link."""
        return stat.S_ISLNK(self.mode)


class InodeTable:
    """Finds inodes by number."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._groups: dict[int, int] = {}

    def read(self, number: int) -> Inode:
        """The inode ``number``.

        Raises:
            BangerError: ``invalid`` if there is none, it is reserved, unused, or of a kind that does not exist.
        """
        superblock = self._device.superblock
        if number != ROOT_INODE and not superblock.first_inode <= number <= superblock.inodes:
            raise refused(f"a directory refers to inode {number}, which no file can have")
        group, slot = divmod(number - 1, superblock.inodes_per_group)
        offset = slot * superblock.inode_bytes
        table, block_bytes = self._table(group), superblock.block_bytes
        # Also the last block of the table has to be there: its start alone proves nothing.
        self._device.check_range(table, -(-(offset + superblock.inode_bytes) // block_bytes))
        return parse_inode(number, self._device.read(table * block_bytes + offset, superblock.inode_bytes))

    def _table(self, group: int) -> int:
        """The first block of a group's inode table."""
        found = self._groups.get(group)
        if found is None:
            superblock = self._device.superblock
            size = superblock.descriptor_bytes
            offset = (superblock.own_block + 1) * superblock.block_bytes + group * size
            raw = self._device.read(offset, size)[:_GROUP_BYTES].ljust(_GROUP_BYTES, b"\0")
            if len(self._groups) >= _CACHED_GROUPS:
                self._groups.clear()
            found = self._groups[group] = Group.unpack(raw).inode_table
        return found


def parse_inode(number: int, raw: bytes) -> Inode:
    """Read an inode of 128 bytes or more.

    Raises:
        BangerError: ``invalid`` if it is not in use, or uses what this reader does not support.
    """
    mode, uid, size, _, _, seconds, _, gid, links, _, flags = _HEAD.unpack_from(raw)
    _, acl, size_high, _, _, acl_high, uid_high, gid_high = _TAIL.unpack_from(raw, _TAIL_OFFSET)
    for flag, feature in _REFUSED_FLAGS.items():
        if flags & flag:
            raise refused(f'inode {number} uses the feature "{feature}", which banger cannot read')
    if stat.S_IFMT(mode) not in _KINDS or not links:
        raise refused(f"inode {number} has a name but is not in use: the file system is damaged")
    block_field = raw[_BLOCK_OFFSET : _BLOCK_OFFSET + BLOCK_FIELD_BYTES]
    extra_bytes = _extra_bytes(number, raw)
    return Inode(
        number=number,
        mode=mode,
        uid=uid | uid_high << 16,
        gid=gid | gid_high << 16,
        size=size | size_high << 32,
        mtime_ns=_time_ns(seconds, raw, extra_bytes),
        nlink=links,
        rdev=_device_numbers(block_field) if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else (0, 0),
        has_extents=bool(flags & _EXTENTS_FLAG),
        block_field=block_field,
        xattr_block=acl | acl_high << 32,
        tail=raw[_CLASSIC_BYTES + extra_bytes :] if extra_bytes else b"",
    )


def _extra_bytes(number: int, raw: bytes) -> int:
    """How many bytes of fields there are beyond the classic 128; attributes follow them."""
    if len(raw) <= _CLASSIC_BYTES:
        return 0
    (count,) = struct.unpack_from("<H", raw, _CLASSIC_BYTES)
    if count % 4 or count > len(raw) - _CLASSIC_BYTES:
        raise refused(f"inode {number} has fields beyond its end: the file system is damaged")
    return int(count)


def _time_ns(seconds: int, raw: bytes, extra_bytes: int) -> int:
    """Signed 32 bits of seconds and, where there is room, two more bits of them below 30 of nanoseconds."""
    extra = 0
    if _CLASSIC_BYTES + extra_bytes >= _MTIME_EXTRA_OFFSET + 4:
        (extra,) = struct.unpack_from("<I", raw, _MTIME_EXTRA_OFFSET)
    return (seconds + ((extra & 3) << 32)) * 10**9 + (extra >> 2)


def _device_numbers(block_field: bytes) -> tuple[int, int]:
    """The old 16-bit form in the first word, or the new one in the second."""
    old, new = struct.unpack_from("<II", block_field)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00
