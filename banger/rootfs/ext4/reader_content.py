"""Reading the content of inodes: data, entries, link targets, attributes."""

from __future__ import annotations

from collections.abc import Iterator

from banger.rootfs.ext4.inodes import BLOCK_FIELD_BYTES
from banger.rootfs.ext4.reader_device import BlockDevice
from banger.rootfs.ext4.reader_directory import Entry, parse_block
from banger.rootfs.ext4.reader_extents import ExtentTree
from banger.rootfs.ext4.reader_file import FileReader
from banger.rootfs.ext4.reader_indirect import BlockMap
from banger.rootfs.ext4.reader_inode import Inode, InodeTable
from banger.rootfs.ext4.reader_xattrs import block_xattrs, inode_xattrs
from banger.rootfs.limits import TARGET_BYTES
from banger.rootfs.nodes import Extent
from banger.rootfs.refusals import refused

#: Linux does not let a directory grow beyond this without the feature ``large_dir``; here it bounds a look-up's time.
_DIRECTORY_BYTES = 2 << 30
_MAX_LOGICAL = 1 << 32


class ContentReader:
    """Reads what inodes hold; everything raises ``invalid`` where the file system is damaged, also while iterating."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._table = InodeTable(device)

    def inode(self, number: int) -> Inode:
        """The inode with this number."""
        return self._table.read(number)

    def extents(self, inode: Inode) -> Iterator[Extent]:
        """Where the data of a file, a directory or a long link is; what is missing reads as zeros."""
        if inode.has_extents:
            return ExtentTree(self._device, inode.number, inode.block_field).extents()
        return BlockMap(self._device, inode.number, inode.block_field, inode.size).extents()

    def open(self, inode: Inode) -> FileReader:
        """The data of a regular file."""
        if not inode.is_file:
            raise refused(f"inode {inode.number} is not a regular file")
        if inode.size > _MAX_LOGICAL * self._device.block_bytes:
            raise refused(f"inode {inode.number} is larger than any file: the file system is damaged")
        return FileReader(self._device, lambda: self.extents(inode), inode.size)

    def listdir(self, inode: Inode) -> Iterator[Entry]:
        """Name, inode number and claimed type of all entries but ``.`` and ``..``, in the order of the disk."""
        if not inode.is_directory:
            raise refused(f"inode {inode.number} is not a directory")
        size = self._device.block_bytes
        blocks, rest = divmod(inode.size, size)
        if inode.size > _DIRECTORY_BYTES or rest:
            raise refused(f"the directory with inode {inode.number} has an impossible size")
        expected = 0
        for extent in self.extents(inode):
            if extent.logical != expected or expected == blocks:
                break
            for block in range(extent.physical, extent.physical + min(extent.length, blocks - extent.logical)):
                yield from parse_block(self._device.read_blocks(block, 1), inode.number)
                expected += 1
        if expected != blocks:
            raise refused(f"the directory with inode {inode.number} has a hole: the file system is damaged")

    def readlink(self, inode: Inode) -> bytes:
        """The target of a symbolic link, of 1 to 4095 bytes."""
        if not inode.is_symlink:
            raise refused(f"inode {inode.number} is not a symbolic link")
        if not 0 < inode.size <= min(TARGET_BYTES, self._device.block_bytes - 1):
            raise refused(f"the symbolic link with inode {inode.number} has an impossible length")
        if inode.size < BLOCK_FIELD_BYTES and not inode.has_extents:
            target = inode.block_field[: inode.size]
        else:
            first = next(self.extents(inode), None)
            if first is None or first.logical:
                raise refused(f"the symbolic link with inode {inode.number} has no target")
            target = self._device.read_blocks(first.physical, 1)[: inode.size]
        if b"\0" in target:
            raise refused(f"the symbolic link with inode {inode.number} has a NUL in its target")
        return target

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Extended attributes by full name, values as ``getxattr`` gives them."""
        found: dict[bytes, bytes] = {}
        if inode.xattr_block:
            found = block_xattrs(self._device.read_blocks(inode.xattr_block, 1), inode.number)
        return found | inode_xattrs(inode.tail, inode.number)
