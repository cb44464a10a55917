"""Inodes: the 256 bytes of each (*Index Nodes*)."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

from banger.rootfs.ext4.checksum import crc32c
from banger.rootfs.ext4.skeleton import INODE_BYTES
from banger.rootfs.nodes import Device, Directory, Fifo, Node, Symlink

#: mode, uid, size, atime, ctime, mtime, dtime, gid, links, blocks, flags, version; block field; generation, ACL block,
#: size high, fragment, blocks high, ACL block high, uid high, gid high, checksum, reserved; extra size, checksum high,
#: ctime extra, mtime extra, atime extra, creation time, its extra, version high, project.
_INODE = struct.Struct("<HHIIIIIHHIII60sIIIIHHHHHHHHIIIIIII")
_CHECKSUM_OFFSET, _CHECKSUM_HIGH_OFFSET = 124, 130
_CHECKSUM_HALF = struct.Struct("<H")
_EXTRA_BYTES = 32
XATTR_OFFSET = 128 + _EXTRA_BYTES
XATTR_ROOM = INODE_BYTES - XATTR_OFFSET
#: ``i_block``: an extent tree's root, a short link's target, or a device's numbers.
BLOCK_FIELD_BYTES = 60
_EXTENTS_FLAG = 0x80000
#: From here on a directory's link count is written as 1, "too many to count" (``dir_nlink``).
_MAX_LINKS = 65000
#: What 34 bits of seconds with a sign reach: 1901 to 2446. The kernel clamps in the same way.
_MIN_SECONDS, _MAX_SECONDS = -(1 << 31), (1 << 34) - (1 << 31) - 1


def inode_seed(seed: int, number: int) -> int:
    """Start of the checksums of inode ``number`` and of its blocks; the generation is always 0."""
    return crc32c(seed, struct.pack("<II", number, 0))


@dataclass(slots=True)
class InodeContent:
    """What an inode holds beside the attributes of its node.

    Attributes:
        size: bytes of data.
        block_field: up to 60 bytes for ``i_block``.
        blocks: 4 KiB blocks that the inode owns, for data, tree and attributes.
        has_extents: ``block_field`` is an extent tree.
        xattr_block: number of its attribute block, 0 for none.
        xattrs: attributes inside the inode, :data:`XATTR_ROOM` bytes or nothing.
    """

    size: int = 0
    block_field: bytes = b""
    blocks: int = 0
    has_extents: bool = False
    xattr_block: int = 0
    xattrs: bytes = b""


def pack_inode(node: Node, content: InodeContent, checksum_seed: int) -> bytes:
    """The inode of ``node``, whose number and link count are set; ``checksum_seed`` is :func:`inode_seed`."""
    seconds, extra = _time(node.mtime_ns)
    links = 1 if node.links >= _MAX_LINKS else node.links
    size, sectors, attributes = content.size, content.blocks * 8, content.xattr_block
    raw = bytearray(INODE_BYTES)
    _INODE.pack_into(
        raw, 0,
        _mode(node), node.uid & 0xFFFF, size & 0xFFFFFFFF, seconds, seconds, seconds, 0, node.gid & 0xFFFF, links,
        sectors & 0xFFFFFFFF, _EXTENTS_FLAG if content.has_extents else 0, 0,
        content.block_field,
        0, attributes & 0xFFFFFFFF, size >> 32, 0, sectors >> 32, attributes >> 32, node.uid >> 16, node.gid >> 16,
        0, 0,
        _EXTRA_BYTES, 0, extra, extra, extra, seconds, extra, 0, 0,
    )  # fmt: skip
    if content.xattrs:
        raw[XATTR_OFFSET : XATTR_OFFSET + len(content.xattrs)] = content.xattrs
    checksum = crc32c(checksum_seed, bytes(raw))
    _CHECKSUM_HALF.pack_into(raw, _CHECKSUM_OFFSET, checksum & 0xFFFF)
    _CHECKSUM_HALF.pack_into(raw, _CHECKSUM_HIGH_OFFSET, checksum >> 16)
    return bytes(raw)


def device_field(device: Device) -> bytes:
    """``i_block`` of a device: the old 16-bit form where it fits, else the new one in the second word."""
    major, minor = device.major, device.minor
    if major < 256 and minor < 256:
        return struct.pack("<I", major << 8 | minor)
    return struct.pack("<II", 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)


def _mode(node: Node) -> int:
    if isinstance(node, Symlink):
        return stat.S_IFLNK | 0o777
    if isinstance(node, Directory):
        return stat.S_IFDIR | node.mode
    if isinstance(node, Device):
        return (stat.S_IFBLK if node.is_block else stat.S_IFCHR) | node.mode
    return (stat.S_IFIFO if isinstance(node, Fifo) else stat.S_IFREG) | node.mode


def _time(moment_ns: int) -> tuple[int, int]:
    """Low 32 bits of the seconds, and the extra field: two more bits of seconds below 30 of nanoseconds."""
    seconds, nanoseconds = divmod(moment_ns, 10**9)
    if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
        seconds, nanoseconds = min(max(seconds, _MIN_SECONDS), _MAX_SECONDS), 0
    low = seconds & 0xFFFFFFFF
    signed_low = low - (1 << 32) if low & 0x80000000 else low
    return low, nanoseconds << 2 | (seconds - signed_low) >> 32 & 3
