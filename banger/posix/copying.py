"""Copying a large sparse file: by sharing its blocks where the file system can, else by its data ranges only."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation

#: The ioctl that makes a file share the blocks of another (ioctl_ficlone(2)).
FICLONE = 0x40049409
#: Refusals of FICLONE that mean "not on this file system" (or not across two).
_NO_CLONE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ENOSYS})
_PIECE = 16 << 20
#: What is looked for that is nothing but zeros, and how much is read at once.
_BLOCK, _READ = 64 << 10, 4 << 20
_ZEROS = bytes(_BLOCK)


def copy_file(source: Path, target: Path, operation: Operation) -> None:
    """Make ``target`` a copy of ``source``, synced. It is removed again if that fails or is cancelled.

    Raises:
        BangerError: ``exhausted`` with the bytes that are needed, if there is no room.
    """
    _copy(source, target, operation.token, is_synced=True)


def copy_unsynced(source: Path, target: Path, token: CancelToken) -> None:
    """The same for a copy that somebody else syncs later: whoever waits for this one waits for no disk."""
    _copy(source, target, token, is_synced=False)


def _copy(source: Path, target: Path, token: CancelToken, *, is_synced: bool) -> None:
    try:
        with source.open("rb") as reading, target.open("xb") as writing:
            if not clone_blocks(reading.fileno(), writing.fileno()):
                _copy_data(reading.fileno(), writing.fileno(), token)
            if is_synced:
                os.fsync(writing.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = source.stat().st_blocks * 512
            raise BangerError(
                ErrorKind.EXHAUSTED, f'no room for a copy of "{source}"', subject=str(source),
                cause=f"it needs {needed} bytes", hint="banger image prune",
            ) from error  # fmt: skip
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def copy_without_zeros(source: Path, target: int, size: int, token: CancelToken) -> None:
    """Fill an open, empty file with ``size`` bytes of another one; blocks of zeros become holes.

    Raises:
        OSError: the file is shorter, and what the host refuses.
        BangerError: ``cancelled``.
    """
    os.ftruncate(target, size)
    with source.open("rb", buffering=0) as reading:
        position = 0
        while position < size:
            token.raise_if_cancelled()
            piece = memoryview(os.pread(reading.fileno(), min(_READ, size - position), position))
            if not piece:
                raise OSError(errno.EIO, f"it ends after {position} bytes", str(source))
            for start in range(0, len(piece), _BLOCK):
                block = piece[start : start + _BLOCK]
                if block != _ZEROS[: len(block)]:
                    _write_whole(target, block, position + start)
            position += len(piece)


def _write_whole(target: int, data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(target, data, position)
        data, position = data[written:], position + written


def clone_blocks(source: int, target: int) -> bool:
    """Make one open file share all blocks of another; False where the file system (or a pair of two) cannot."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def _copy_data(source: int, target: int, token: CancelToken) -> None:
    """Copy what ``lseek(SEEK_DATA)`` finds; holes stay holes. ``copy_file_range`` may share blocks on its own."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(source, position, os.SEEK_HOLE)
        while position < end:
            token.raise_if_cancelled()
            copied = _copy_piece(source, target, min(_PIECE, end - position), position)
            if not copied:
                return  # the source was cut short meanwhile
            position += copied


def _copy_piece(source: int, target: int, count: int, position: int) -> int:
    """Copy up to ``count`` bytes inside the kernel; by hand between file systems of two kinds (EXDEV)."""
    try:
        return os.copy_file_range(source, target, count, position, position)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    return os.pwrite(target, os.pread(source, count, position), position)
