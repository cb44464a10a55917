"""Block allocation: the free blocks, their division between writers, and the block bitmaps."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator

from banger.rootfs.ext4.checksum import crc32c
from banger.rootfs.ext4.geometry import Geometry
from banger.rootfs.ext4.skeleton import BLOCK_BYTES

#: Blocks that a writer takes at a time: 16 MiB.
_RESERVATION = 4096

Run = tuple[int, int]
"""First block and count."""


class ImageFullError(Exception):
    """The file system has no room for the content; how much it would take is not known here."""


class BlockBitmaps:
    """The block bitmaps of all groups. Not thread-safe; used before and after the layers' threads run."""

    def __init__(self, descriptor: int, geometry: Geometry) -> None:
        self._descriptor = descriptor
        self._geometry = geometry
        self._masks = [self._load(index) for index in range(len(geometry.groups))]
        self._touched: set[int] = set()
        for index, run in self._split(geometry.metadata_runs()):
            if not geometry.groups[index].has_block_bitmap:
                self._masks[index] |= _bits(run)

    def mark_used(self, runs: Iterable[Run]) -> None:
        """Set the bits of ``runs``."""
        for index, run in self._split(_joined(runs)):
            self._masks[index] |= _bits(run)
            self._touched.add(index)

    def mark_free(self, runs: Iterable[Run]) -> None:
        """Clear the bits of ``runs``."""
        for index, run in self._split(runs):
            self._masks[index] &= ~_bits(run)
            self._touched.add(index)

    def free_runs(self) -> Iterator[Run]:
        """All free blocks in ascending order, in the longest possible runs."""
        geometry = self._geometry
        start = end = 0
        for index, mask in enumerate(self._masks):
            at = index * geometry.blocks_per_group
            free = ~mask & ((1 << geometry.group_blocks(index)) - 1)
            while free:
                gap = (free & -free).bit_length() - 1
                free >>= gap
                count = (~free & (free + 1)).bit_length() - 1
                free >>= count
                if at + gap != end:
                    if end > start:
                        yield start, end - start
                    start = at + gap
                end = at = at + gap + count
        if end > start:
            yield start, end - start

    def write_back(self) -> None:
        """Write the bitmaps that changed, and their checksums and free counts into the geometry's groups."""
        geometry = self._geometry
        for index in sorted(self._touched):
            group, count = geometry.groups[index], geometry.group_blocks(index)
            # Bits beyond the last block are set, as there is nothing to allocate.
            mask = self._masks[index] | ((1 << (BLOCK_BYTES * 8 - count)) - 1) << count
            bitmap = mask.to_bytes(BLOCK_BYTES, "little")
            os.pwrite(self._descriptor, bitmap, group.block_bitmap * BLOCK_BYTES)
            group.free_blocks = BLOCK_BYTES * 8 - mask.bit_count()
            group.block_bitmap_checksum = crc32c(geometry.seed, bitmap[: geometry.blocks_per_group // 8])
            group.mark_initialised(blocks=True, inodes=False)

    def _load(self, index: int) -> int:
        group = self._geometry.groups[index]
        if not group.has_block_bitmap:
            return 0
        return int.from_bytes(os.pread(self._descriptor, BLOCK_BYTES, group.block_bitmap * BLOCK_BYTES), "little")

    def _split(self, runs: Iterable[Run]) -> Iterator[tuple[int, Run]]:
        """Cut ``runs`` at group boundaries: group and run relative to its first block."""
        per_group = self._geometry.blocks_per_group
        for start, count in runs:
            at, left = start, count
            while left:
                index, offset = divmod(at, per_group)
                here = min(left, per_group - offset)
                yield index, (offset, here)
                at += here
                left -= here


class FreeBlocks:
    """The free blocks as a supply for two writers, each a thread that takes from its own end.

    Where a writer's data lands depends only on what it stored before, not on how the threads raced: equal
    layers give equal images.
    """

    WRITERS = 2

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = deque(runs)
        self._lock = threading.Lock()

    def take(self, writer: int, wanted: int = _RESERVATION) -> Run:
        """Up to ``wanted`` blocks from the low end (writer 0) or the high end (writer 1).

        Raises:
            ImageFullError: if there is none left.
        """
        with self._lock:
            if not self._runs:
                raise ImageFullError
            end = -1 if writer else 0
            start, count = self._runs[end]
            taken = min(wanted, count)
            if taken == count:
                del self._runs[end]
                return start, count
            if writer:
                self._runs[end] = (start, count - taken)
                return start + count - taken, taken
            self._runs[end] = (start + taken, count - taken)
            return start, taken

    def give_back(self, writer: int, run: Run) -> None:
        """Return what a writer took last and did not use."""
        if run[1]:
            with self._lock:
                (self._runs.append if writer else self._runs.appendleft)(run)


def _bits(run: Run) -> int:
    offset, count = run
    return ((1 << count) - 1) << offset


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """``runs`` sorted, neighbours joined: a bit operation on a whole bitmap per file would be the slow part."""
    start = end = 0
    for at, count in sorted(runs):
        if at != end:
            if end > start:
                yield start, end - start
            start = at
        end = at + count
    if end > start:
        yield start, end - start
