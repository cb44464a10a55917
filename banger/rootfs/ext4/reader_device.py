"""Bounded reads from the file that holds an image."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.ext4.reader_superblock import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, read_superblock
from banger.rootfs.refusals import refused


class BlockDevice:
    """An image file, opened read-only, and its superblock. Thread-safe: it has no position.

    Attributes:
        superblock: checked to be one that the reader understands.
        block_bytes: size of a block.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            BangerError: ``invalid`` if it is not a file with a supported ext4 in it; ``not_found``; ``denied``.
        """
        self._path = path
        self._descriptor = open_image_file(path)
        try:
            raw = self._pread(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
            self.superblock = read_superblock(raw, os.fstat(self._descriptor).st_size, str(path))
        except BaseException:
            os.close(self._descriptor)
            raise
        self.block_bytes = self.superblock.block_bytes

    def close(self) -> None:
        """Close the file; further reads fail."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read_blocks(self, first: int, count: int) -> bytes:
        """``count`` whole blocks from block ``first`` on. The caller bounds ``count``.

        Raises:
            BangerError: ``invalid`` if they are not all inside the file system.
        """
        self.check_range(first, count)
        return self.read(first * self.block_bytes, count * self.block_bytes)

    def check_range(self, first: int, count: int) -> None:
        """Refuse blocks that nothing can be in: those up to the superblock's, and those beyond the end."""
        superblock = self.superblock
        if count < 1 or not superblock.own_block < first <= superblock.blocks - count:
            raise refused(f"the file system refers to block {first}, which it does not have")

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on; raises ``invalid`` if the file ends before that."""
        data = self._pread(offset, count)
        if len(data) != count:
            raise refused("the image file is shorter than the file system in it")
        return data

    def _pread(self, offset: int, count: int) -> bytes:
        try:
            return os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f'cannot read "{self._path}"',
                subject=str(self._path),
                cause=error.strerror or "",
            ) from error


def open_image_file(path: Path) -> int:
    """A descriptor for reading the regular file at ``path``; following links is the caller's user's own business.

    Raises:
        BangerError: ``not_found``; ``denied``; ``invalid`` if it is anything but a regular file.
    """
    try:
        # Non-blocking, in case it is a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise BangerError(ErrorKind.NOT_FOUND, f'there is no file "{path}"', subject=str(path)) from error
    except OSError as error:
        kind = ErrorKind.DENIED if isinstance(error, PermissionError) else ErrorKind.INVALID
        message = f'cannot open "{path}"'
        raise BangerError(kind, message, subject=str(path), cause=error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BangerError(ErrorKind.INVALID, f'"{path}" is not a regular file', subject=str(path))
    return descriptor
