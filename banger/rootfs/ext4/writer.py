"""Writing one ext4 image, from the empty file system to the last checksum."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.rootfs.ext4.blocks import BlockBitmaps, FreeBlocks
from banger.rootfs.ext4.data import DataWriter
from banger.rootfs.ext4.extents import inline_extents
from banger.rootfs.ext4.geometry import Geometry
from banger.rootfs.ext4.inodes import BLOCK_FIELD_BYTES
from banger.rootfs.ext4.metadata import ROOT_INODE, MetadataWriter, number_nodes
from banger.rootfs.nodes import Directory

#: mke2fs makes ``lost+found`` the first ordinary inode. An image has just what its layers say, so it goes.
_LOST_AND_FOUND_INODE = 11
_BLOCK_FIELD_OFFSET = 40


class Ext4Writer:
    """Data of files first, from up to two threads, then the tree that names them. Made by :func:`open_image`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._geometry = Geometry(descriptor)
        self._map = BlockBitmaps(descriptor, self._geometry)
        for number in (ROOT_INODE, _LOST_AND_FOUND_INODE):
            field = self._geometry.read_inode(number)[_BLOCK_FIELD_OFFSET:][:BLOCK_FIELD_BYTES]
            self._map.mark_free((extent.physical, extent.length) for extent in inline_extents(field))
        self._free = FreeBlocks(self._map.free_runs())

    def data_writer(self, writer: int) -> DataWriter:
        """The writer for one thread's files; to be closed before :meth:`finish`."""
        return DataWriter(self._descriptor, self._free, writer)

    def finish(self, root: Directory, token: CancelToken) -> int:
        """Write the tree and everything that counts or sums it; returns how many inodes it has.

        Raises:
            BangerError: ``invalid`` for what ext4 cannot hold; ``cancelled``.
            ImageFullError: if the file system is too small.
        """
        order = number_nodes(root, self._geometry.first_inode)
        writer = MetadataWriter(self._descriptor, self._geometry, self._free)
        writer.write(order, token)
        self._map.mark_used(writer.used)
        self._map.write_back()
        self._geometry.write_back()
        return len(order)


@contextmanager
def open_image(path: Path) -> Iterator[Ext4Writer]:
    """Open the empty file system at ``path`` for writing."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield Ext4Writer(descriptor)
    finally:
        os.close(descriptor)
