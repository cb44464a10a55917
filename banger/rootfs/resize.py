"""Growing the ext4 on a disk that is not mounted."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import format_size
from banger.rootfs.disk import check_size
from banger.rootfs.ext4.reader_superblock import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET
from banger.rootfs.ext4.skeleton import BLOCK_BYTES, host_error
from banger.rootfs.tools import run_tool

_MAGIC = 0xEF53
_INCOMPAT_64BIT = 0x80
#: e2fsck(8), EXIT CODE: clean; errors corrected; corrected, and a system that has it mounted should be rebooted.
_E2FSCK_USABLE = frozenset({0, 1, 2})
_QUOTED_BYTES = 2000


def file_system_bytes(disk: Path) -> int:
    """Size of the ext4 in a file or on a block device, whatever state it is in.

    Offsets are those of *Super Block* in the kernel's ext4 documentation.

    Raises:
        BangerError: ``invalid`` if there is no ext4; ``not_found``; ``denied``.
    """
    try:
        with disk.open("rb") as file:
            raw = os.pread(file.fileno(), SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET)
    except FileNotFoundError as error:
        raise BangerError(ErrorKind.NOT_FOUND, f'there is no disk "{disk}"', subject=str(disk)) from error
    except OSError as error:
        kind = ErrorKind.DENIED if isinstance(error, PermissionError) else ErrorKind.UNAVAILABLE
        raise BangerError(
            kind, f'cannot read "{disk}"', subject=str(disk), cause=error.strerror or str(error)
        ) from error
    if len(raw) != SUPERBLOCK_BYTES or struct.unpack_from("<H", raw, 0x38)[0] != _MAGIC:
        raise BangerError(ErrorKind.INVALID, f'"{disk}" holds no ext4 file system', subject=str(disk))
    low, shift, incompatible, high = (struct.unpack_from("<I", raw, at)[0] for at in (0x4, 0x18, 0x60, 0x150))
    blocks = low | (high << 32 if incompatible & _INCOMPAT_64BIT else 0)
    return int(blocks * (1024 << min(shift, 6)))


def grow_disk(disk: Path, size_bytes: int, token: CancelToken | None = None) -> None:
    """Make a disk file and the ext4 in it larger. Repeat it after a crash halfway; the same size is success.

    Args:
        disk: a file that nobody uses; its journal is replayed first if need be.
        size_bytes: cut to whole blocks of 4 KiB.
        token: cancels before the file system is touched.

    Raises:
        BangerError: ``usage`` if it is larger already; ``exhausted`` if the host cannot hold such a file; ``invalid``
            if the file system is damaged; ``unavailable`` without e2fsprogs; ``cancelled``.
    """
    size_bytes -= size_bytes % BLOCK_BYTES
    have = file_system_bytes(disk)
    if size_bytes < have:
        raise cannot_shrink(disk, have, size_bytes)
    check_size(disk, size_bytes)
    if token is not None:
        token.raise_if_cancelled()
    try:
        if disk.stat().st_size < size_bytes:
            os.truncate(disk, size_bytes)
    except OSError as error:
        raise host_error(error, disk, size_bytes) from error
    fill_disk(disk, size_bytes)


def fill_disk(disk: Path, size_bytes: int) -> None:
    """Make the ext4 as large as the file or block device that it is on. Not to be cancelled: it would be torn.

    Raises:
        BangerError: as :func:`grow_disk`.
    """
    if file_system_bytes(disk) >= size_bytes:
        return
    code, output = run_tool("e2fsck", ["-f", "-p", str(disk)])
    if code not in _E2FSCK_USABLE:
        raise BangerError(
            ErrorKind.INVALID,
            f'the file system on "{disk}" is damaged, so that it cannot be made larger',
            subject=str(disk),
            cause=output[-_QUOTED_BYTES:],
            hint=f"e2fsck -f {disk}",
        )
    code, output = run_tool("resize2fs", [str(disk)])
    if code != 0:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'resize2fs cannot make the file system on "{disk}" larger',
            subject=str(disk),
            cause=output[-_QUOTED_BYTES:],
            hint="banger system df",
        )


def cannot_shrink(disk: Path, have_bytes: int, wanted_bytes: int) -> BangerError:
    """The error for a request that would cut off what is there."""
    return BangerError(
        ErrorKind.USAGE,
        f"the disk has {format_size(have_bytes)} and cannot be made smaller",
        subject=str(disk),
        cause=f"{format_size(wanted_bytes)} were asked for",
        hint=f"ask for more than {format_size(have_bytes)}",
    )
