"""The superblock as untrusted input: its features, and whether its numbers are consistent.

Field offsets and feature bits: *Super Block* of the kernel's ext4 documentation; names are those that ``mke2fs -O``
takes. Checksums are not verified: they tell accidents, which e2fsck is asked about, and stop nobody who means harm.
"""

from __future__ import annotations

import shlex
import struct
import uuid
from dataclasses import dataclass

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import format_size
from banger.rootfs.refusals import refused

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_BYTES = 1024
_MAGIC = 0xEF53
_MAX_BLOCK_SHIFT = 6
_OLD_INODE_BYTES = 128
_OLD_FIRST_INODE = 11
_DESCRIPTOR_BYTES = 32
#: A file system of this many bytes is the largest that Linux mounts.
_MAX_BYTES = 1 << 60

_COMPAT = {
    0x1: "dir_prealloc",
    0x2: "imagic_inodes",
    0x4: "has_journal",
    0x8: "ext_attr",
    0x10: "resize_inode",
    0x20: "dir_index",
    0x200: "sparse_super2",
    0x400: "fast_commit",
    0x800: "stable_inodes",
    0x1000: "orphan_file",
}
_RO_COMPAT = {
    0x1: "sparse_super",
    0x2: "large_file",
    0x8: "huge_file",
    0x10: "uninit_bg",
    0x20: "dir_nlink",
    0x40: "extra_isize",
    0x100: "quota",
    0x200: "bigalloc",
    0x400: "metadata_csum",
    0x1000: "read-only",
    0x2000: "project",
    0x4000: "shared_blocks",
    0x8000: "verity",
    0x10000: "orphan_present",
}
_INCOMPAT = {
    0x1: "compression",
    0x2: "filetype",
    0x4: "needs_recovery",
    0x8: "journal_dev",
    0x10: "meta_bg",
    0x40: "extent",
    0x80: "64bit",
    0x100: "mmp",
    0x200: "flex_bg",
    0x400: "ea_inode",
    0x1000: "dirdata",
    0x2000: "metadata_csum_seed",
    0x4000: "large_dir",
    0x8000: "inline_data",
    0x10000: "encrypt",
    0x20000: "casefold",
}
#: A reader may go on with any other kind of feature it does not know; that is what "incompatible" is about.
_UNDERSTOOD = frozenset({"filetype", "extent", "64bit", "mmp", "flex_bg", "metadata_csum_seed", "large_dir"})
_64BIT = 0x80


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the reader needs to know of a file system as a whole; every number has been checked.

    Attributes:
        block_bytes: 1 KiB to 64 KiB.
        blocks: how many there are; all of them inside the file.
        own_block: where the superblock itself is: in block 1 where blocks have 1 KiB, else in block 0.
        descriptor_bytes: size of one group descriptor.
        first_inode: the first one that is not reserved.
        is_clean: it was unmounted properly and no error has been recorded.
        features: names as ``mke2fs -O`` takes them, sorted.
    """

    block_bytes: int
    blocks: int
    inodes: int
    own_block: int
    inodes_per_group: int
    inode_bytes: int
    descriptor_bytes: int
    first_inode: int
    free_blocks: int
    uuid: uuid.UUID
    label: bytes
    is_clean: bool
    features: tuple[str, ...]


def read_superblock(raw: bytes, file_bytes: int, name: str = "IMAGE") -> Superblock:
    """Check the 1024 bytes of a superblock.

    Args:
        raw: as read from the image; shorter if the file is.
        file_bytes: size of the image file.
        name: what to call the file in a hint.

    Raises:
        BangerError: ``invalid`` if it is not an ext2, ext3 or ext4, has a feature that the reader does not understand
            (the message names it), or contradicts itself or the file.
    """
    if len(raw) != SUPERBLOCK_BYTES or _u16(raw, 0x38) != _MAGIC:
        raise refused("this is not an ext4 file system")
    _check_features(_u32(raw, 0x60), name)
    dynamic = _u32(raw, 0x4C) > 0  # revision 0 has fixed inodes and no features
    wide = bool(_u32(raw, 0x60) & _64BIT)
    high = _u32(raw, 0x150) if wide else 0
    if _u32(raw, 0x18) > _MAX_BLOCK_SHIFT:
        raise refused("the file system has blocks larger than 64 KiB")
    found = Superblock(
        block_bytes=1024 << _u32(raw, 0x18),
        blocks=_u32(raw, 0x4) | high << 32,
        inodes=_u32(raw, 0x0),
        own_block=SUPERBLOCK_OFFSET >> 10 + _u32(raw, 0x18),
        inodes_per_group=_u32(raw, 0x28),
        inode_bytes=_u16(raw, 0x58) if dynamic else _OLD_INODE_BYTES,
        descriptor_bytes=_u16(raw, 0xFE) if wide else _DESCRIPTOR_BYTES,
        first_inode=_u32(raw, 0x54) if dynamic else _OLD_FIRST_INODE,
        free_blocks=_u32(raw, 0xC) | (_u32(raw, 0x158) if wide else 0) << 32,
        uuid=uuid.UUID(bytes=raw[0x68:0x78]),
        label=raw[0x78:0x88].partition(b"\0")[0],
        is_clean=_u16(raw, 0x3A) & 3 == 1,
        features=_names(raw),
    )
    _check_numbers(found, first_block=_u32(raw, 0x14), blocks_per_group=_u32(raw, 0x20))
    if found.blocks * found.block_bytes > file_bytes:
        raise refused(
            f"the image is truncated: its file system has {format_size(found.blocks * found.block_bytes)}, "
            f"the file only {format_size(file_bytes)}"
        )
    return found


def _check_features(incompat: int, name: str) -> None:
    for bit in (1 << shift for shift in range(32)):
        feature = _INCOMPAT.get(bit, f"0x{bit:x}")
        if not incompat & bit or feature in _UNDERSTOOD:
            continue
        if feature == "needs_recovery":
            raise BangerError(
                ErrorKind.INVALID,
                "the file system is in use, or was not unmounted cleanly: its journal has to be replayed first",
                hint=f"stop what uses it, then: e2fsck -fp {shlex.quote(name)}",
            )
        raise refused(f'the file system has the feature "{feature}", which banger cannot read')


def _check_numbers(found: Superblock, first_block: int, blocks_per_group: int) -> None:
    """Refuse whatever would make a later division, offset or size meaningless."""
    bits = found.block_bytes * 8
    groups = -(-(found.blocks - first_block) // blocks_per_group) if blocks_per_group else 0
    sound = (
        found.blocks * found.block_bytes <= _MAX_BYTES
        and first_block <= found.own_block < found.blocks
        and 0 < found.inodes_per_group <= bits
        and found.inodes == groups * found.inodes_per_group
        and _is_power_of_two(found.inode_bytes)
        and _OLD_INODE_BYTES <= found.inode_bytes <= found.block_bytes
        and _is_power_of_two(found.descriptor_bytes)
        and _DESCRIPTOR_BYTES <= found.descriptor_bytes <= 1024
        and _OLD_FIRST_INODE <= found.first_inode <= found.inodes
    )
    if not sound:
        raise refused("the superblock contradicts itself: the file system is damaged")


def _names(raw: bytes) -> tuple[str, ...]:
    found = []
    for offset, names in ((0x5C, _COMPAT), (0x60, _INCOMPAT), (0x64, _RO_COMPAT)):
        mask = _u32(raw, offset)
        found += [names.get(1 << shift, f"0x{1 << shift:x}") for shift in range(32) if mask & 1 << shift]
    return tuple(sorted(found))


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _u16(raw: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", raw, offset)[0])


def _u32(raw: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", raw, offset)[0])
