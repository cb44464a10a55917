"""A root file system of its own together with the image it was copied from, as one readable object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from banger.rootfs.ext4.metadata import ROOT_INODE
from banger.rootfs.ext4.reader import Ext4Reader, Inode
from banger.rootfs.ext4.reader_directory import Entry
from banger.rootfs.ext4.reader_file import FileReader

#: Inodes of the disk are numbered from here on: ext4's own numbers have 32 bits, so that the two never meet.
_DISK = 1 << 32


class SeparateImage(Ext4Reader):
    """The disk's tree. What is given an inode of the base works as well, though no directory leads there."""

    def __init__(self, base: Ext4Reader, disk: Path) -> None:
        """Open ``disk``, an ext4 whose journal needs no replaying; ``base`` stays the caller's to close."""
        super().__init__(disk)
        self._base = base

    @property
    def root(self) -> Inode:
        """The disk's root directory."""
        return self.inode(_DISK + ROOT_INODE)

    def inode(self, number: int) -> Inode:
        """The inode that :meth:`listdir` gave this number."""
        if number < _DISK:
            return self._base.inode(number)
        return replace(super().inode(number - _DISK), number=number)

    def listdir(self, inode: Inode) -> Iterator[Entry]:
        """The entries of a directory."""
        if inode.number < _DISK:
            yield from self._base.listdir(inode)
            return
        for name, number, file_type in super().listdir(inode):
            yield name, _DISK + number, file_type

    def open(self, inode: Inode) -> FileReader:
        """The data of a regular file."""
        return self._base.open(inode) if inode.number < _DISK else super().open(inode)

    def readlink(self, inode: Inode) -> bytes:
        """The target of a symbolic link."""
        return self._base.readlink(inode) if inode.number < _DISK else super().readlink(inode)

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Extended attributes."""
        return self._base.xattrs(inode) if inode.number < _DISK else super().xattrs(inode)
