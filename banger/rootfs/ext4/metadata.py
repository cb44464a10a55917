"""Writing a finished tree: inode numbers, directories, inode tables, inode bitmaps."""

from __future__ import annotations

import os
from collections.abc import Sequence

from banger.core.cancel import CancelToken
from banger.rootfs.ext4.blocks import FreeBlocks, ImageFullError, Run
from banger.rootfs.ext4.checksum import crc32c
from banger.rootfs.ext4.data import write_all
from banger.rootfs.ext4.directories import directory_data
from banger.rootfs.ext4.extents import extent_tree
from banger.rootfs.ext4.geometry import Geometry
from banger.rootfs.ext4.inodes import BLOCK_FIELD_BYTES, XATTR_ROOM, InodeContent, device_field, inode_seed, pack_inode
from banger.rootfs.ext4.skeleton import BLOCK_BYTES, INODE_BYTES
from banger.rootfs.ext4.xattrs import XattrSet
from banger.rootfs.nodes import Device, Directory, Extent, File, Node, Symlink
from banger.rootfs.refusals import refused

ROOT_INODE = 2
#: Linux refuses to make more links to one file (``EXT4_LINK_MAX``).
_MAX_LINKS = 65000
_BATCH_BYTES = 1 << 20


def number_nodes(root: Directory, first: int) -> list[Node]:
    """Give every node its inode number and link count, directory by directory; returns them in that order.

    Raises:
        BangerError: ``invalid`` if a file has more names than ext4 can count.
    """
    root.number, root.links = ROOT_INODE, 2
    order: list[Node] = [root]
    directories = [root]
    number = first
    for directory in directories:
        for child in directory.entries.values():
            if not child.number:
                child.number = number
                number += 1
                order.append(child)
            if isinstance(child, Directory):
                child.links = 2
                directory.links += 1
                directories.append(child)
            else:
                child.links += 1
                if child.links > _MAX_LINKS:
                    raise refused(f"a file has more than {_MAX_LINKS} names, which ext4 cannot hold")
    return order


class MetadataWriter:
    """Writes the inodes of a numbered tree and the blocks that they need beside file data.

    Attributes:
        used: the blocks taken, file data included.
    """

    def __init__(self, descriptor: int, geometry: Geometry, free: FreeBlocks) -> None:
        self._descriptor = descriptor
        self._geometry = geometry
        self._blocks = _BlockStore(descriptor, free)
        self.used: list[Run] = []

    def write(self, order: list[Node], token: CancelToken) -> None:
        """Write everything.

        Args:
            order: from :func:`number_nodes`.
            token: cancels.

        Raises:
            BangerError: ``invalid`` for attributes that ext4 cannot hold; ``cancelled``.
            ImageFullError: if blocks or inodes do not suffice.
        """
        geometry = self._geometry
        if order[-1].number > geometry.inodes:
            raise ImageFullError
        tables = _InodeTables(self._descriptor, geometry)
        for node in order:
            token.raise_if_cancelled()
            tables.put(node.number, self._inode(node), is_directory=isinstance(node, Directory))
        tables.close()
        self.used += self._blocks.close()

    def _inode(self, node: Node) -> bytes:
        seed = inode_seed(self._geometry.seed, node.number)
        content = self._content(node, seed)
        if node.xattrs and (attributes := XattrSet(node.xattrs)):
            inside = attributes.in_inode(XATTR_ROOM)
            if inside is None:
                content.xattr_block = self._blocks.reserve()
                content.blocks += 1
                self._blocks.fill(content.xattr_block, attributes.block(content.xattr_block, self._geometry.seed))
            else:
                content.xattrs = inside
        return pack_inode(node, content, seed)

    def _content(self, node: Node, seed: int) -> InodeContent:
        if isinstance(node, File):
            self.used += ((extent.physical, extent.length) for extent in node.extents)
            return self._extents(node.extents, node.size, seed)
        if isinstance(node, Directory):
            data = directory_data(node, seed)
            return self._extents(self._blocks.store(data), len(data), seed)
        if isinstance(node, Symlink):
            size = len(node.target)
            if size < BLOCK_FIELD_BYTES:
                return InodeContent(size, node.target)
            return self._extents(self._blocks.store(node.target.ljust(BLOCK_BYTES, b"\0")), size, seed)
        return InodeContent(block_field=device_field(node) if isinstance(node, Device) else b"")

    def _extents(self, extents: Sequence[Extent], size: int, seed: int) -> InodeContent:
        field, blocks = extent_tree(extents, seed, self._blocks.store_block)
        blocks += sum(extent.length for extent in extents)
        return InodeContent(size, field, blocks, has_extents=True)


class _BlockStore:
    """Metadata blocks, one after the other, written in batches."""

    def __init__(self, descriptor: int, free: FreeBlocks) -> None:
        self._descriptor = descriptor
        self._free = free
        self._next = self._end = 0
        self._used: list[Run] = []
        self._batch: list[memoryview] = []
        self._batch_block = 0
        self._batch_bytes = 0

    def reserve(self) -> int:
        """The number of the next block; what belongs there must be given to :meth:`fill` at once."""
        if self._next == self._end:
            self._flush()
            self._next, count = self._free.take(0)
            self._end = self._next + count
            self._used.append((self._next, 0))
        if not self._batch:
            self._batch_block = self._next
        self._next += 1
        start, count = self._used[-1]
        self._used[-1] = (start, count + 1)
        return self._next - 1

    def fill(self, number: int, block: bytes | memoryview) -> None:
        """Queue the content of the block that was reserved last."""
        assert number == self._next - 1
        self._batch.append(memoryview(block))
        self._batch_bytes += BLOCK_BYTES
        if self._batch_bytes >= _BATCH_BYTES:
            self._flush()

    def store_block(self, block: bytes) -> int:
        """Write one block; returns its number."""
        number = self.reserve()
        self.fill(number, block)
        return number

    def store(self, data: bytes) -> list[Extent]:
        """Write whole blocks; returns where they are."""
        extents: list[Extent] = []
        view = memoryview(data)
        for logical in range(len(data) // BLOCK_BYTES):
            number = self.reserve()
            self.fill(number, view[logical * BLOCK_BYTES : (logical + 1) * BLOCK_BYTES])
            if extents and extents[-1].physical + extents[-1].length == number:
                extents[-1] = extents[-1]._replace(length=extents[-1].length + 1)
            else:
                extents.append(Extent(logical, number, 1))
        return extents

    def close(self) -> list[Run]:
        """Write what is pending; returns all blocks used."""
        self._flush()
        self._free.give_back(0, (self._next, self._end - self._next))
        return self._used

    def _flush(self) -> None:
        if self._batch:
            write_all(self._descriptor, self._batch, self._batch_block * BLOCK_BYTES)
        self._batch = []
        self._batch_bytes = 0


class _InodeTables:
    """Inode tables and bitmaps, filled in ascending order of inode numbers, one group in memory at a time."""

    def __init__(self, descriptor: int, geometry: Geometry) -> None:
        self._descriptor = descriptor
        self._geometry = geometry
        self._index = 0
        group = geometry.groups[0]
        reserved = (geometry.first_inode - 1) * INODE_BYTES
        self._table = bytearray(os.pread(descriptor, reserved, group.inode_table * BLOCK_BYTES))
        self._directories = 0

    def put(self, number: int, inode: bytes, *, is_directory: bool) -> None:
        """Set an inode: the root, or the next one."""
        index, slot = divmod(number - 1, self._geometry.inodes_per_group)
        if index != self._index:
            self._flush()
            self._index, self._table, self._directories = index, bytearray(), 0
        self._directories += is_directory
        self._table[slot * INODE_BYTES : (slot + 1) * INODE_BYTES] = inode

    def close(self) -> None:
        """Write the last group."""
        self._flush()

    def _flush(self) -> None:
        geometry = self._geometry
        group, per_group = geometry.groups[self._index], geometry.inodes_per_group
        used = len(self._table) // INODE_BYTES
        write_all(self._descriptor, [memoryview(self._table)], group.inode_table * BLOCK_BYTES)
        # Bits beyond the group's inodes are set, as there is nothing to allocate.
        mask = (1 << used) - 1 | ((1 << (BLOCK_BYTES * 8 - per_group)) - 1) << per_group
        bitmap = mask.to_bytes(BLOCK_BYTES, "little")
        os.pwrite(self._descriptor, bitmap, group.inode_bitmap * BLOCK_BYTES)
        group.inode_bitmap_checksum = crc32c(geometry.seed, bitmap[: per_group // 8])
        group.free_inodes = group.unused_inodes = per_group - used
        group.directories = self._directories
        group.mark_initialised(blocks=False, inodes=True)
