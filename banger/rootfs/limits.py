"""What an archive may cost, and the running account of it. Every number is far above what real images use."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from banger.core.units import GIB, MIB, format_size
from banger.rootfs.refusals import refused

#: Linux: one component of a path (``NAME_MAX``); also what a directory entry of ext4 can hold.
NAME_BYTES = 255
#: Linux: a symbolic link's target (``PATH_MAX`` less the final NUL), which is also one ext4 block less the NUL.
TARGET_BYTES = 4095
#: Linux: symbolic links followed in one look-up before it is called a loop.
FOLLOWED_LINKS = 40
#: What an entry costs in memory beside its names and attributes; measured, rounded up.
_ENTRY_OVERHEAD_BYTES = 700


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings for one image.

    Attributes:
        layers: layers per image (overlayfs itself stops at about 500, builders at 127).
        entries: files, directories and links of all layers together, implied parent directories included.
        path_bytes: length of one path.
        file_bytes: size of one file.
        total_bytes: all layers together, decompressed.
        metadata_bytes: memory that names, link targets and extended attributes may take.
        header_bytes: one PAX or GNU extension header.
        lookup_steps: path components visited while merging: bounds the time that nested symbolic links can burn.
    """

    layers: int = 128
    entries: int = 1_000_000
    path_bytes: int = 4096
    file_bytes: int = 64 * GIB
    total_bytes: int = 128 * GIB
    metadata_bytes: int = GIB
    header_bytes: int = MIB
    lookup_steps: int = 20_000_000


class Budget:
    """What one build has used of its :class:`Limits`. Thread-safe: the layers of an image share one.

    Every method raises ``invalid`` once its ceiling is passed.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._inflated = 0
        self._entries = 0
        self._metadata = 0
        self._steps = 0

    def spend_inflated(self, count: int) -> None:
        """Account for ``count`` bytes that came out of a decompressor."""
        with self._lock:
            self._inflated += count
            if self._inflated <= self.limits.total_bytes:
                return
        raise refused(f"the layers hold more than {format_size(self.limits.total_bytes)} of data")

    def spend_entry(self, metadata_bytes: int) -> None:
        """Account for one file, directory or link with ``metadata_bytes`` of names and attributes."""
        with self._lock:
            self._entries += 1
            self._metadata += metadata_bytes + _ENTRY_OVERHEAD_BYTES
            entries, metadata = self._entries, self._metadata
        if entries > self.limits.entries:
            raise refused(f"the layers hold more than {self.limits.entries} entries")
        if metadata > self.limits.metadata_bytes:
            raise refused(f"names and attributes take more than {format_size(self.limits.metadata_bytes)}")

    def spend_steps(self, count: int) -> None:
        """Account for ``count`` path components visited."""
        with self._lock:
            self._steps += count
            if self._steps <= self.limits.lookup_steps:
                return
        raise refused("the layers' paths and symbolic links take too long to resolve")
