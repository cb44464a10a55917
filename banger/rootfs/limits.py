"""Limits for archives, and accounting against them. Every number is far above what real images use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from banger.core.errors import BangerError, ErrorKind
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
#: Unpacked between two looks at the host's free space.
_LOOK_BYTES = 32 * MIB
#: What may have come out of the decompressor, and so be accounted for, before its member is announced.
_READ_AHEAD_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings for one image.

    Attributes:
        layers: layers per image (overlayfs itself stops at about 500, builders at 127).
        entries: files, directories and links of all layers together, implied parent directories included.
        path_bytes: length of one path.
        file_bytes: size of one file.
        total_bytes: all layers together, decompressed.
        total_setting: what ``total_bytes`` can be changed by, for errors.
        reserve_bytes: what is left free of the host's file system.
        metadata_bytes: memory that names, link targets and extended attributes may take.
        header_bytes: one PAX or GNU extension header.
        lookup_steps: path components visited while merging: bounds the time that nested symbolic links can burn.
    """

    layers: int = 128
    entries: int = 1_000_000
    path_bytes: int = 4096
    file_bytes: int = 64 * GIB
    total_bytes: int = 64 * GIB
    total_setting: str = ""
    reserve_bytes: int = 64 * MIB
    metadata_bytes: int = GIB
    header_bytes: int = MIB
    lookup_steps: int = 20_000_000


class Budget:
    """What one build has used of its :class:`Limits`. Thread-safe: the layers of an image share one.

    Every method raises ``invalid`` once its ceiling is passed.
    """

    def __init__(self, limits: Limits, free_bytes: Callable[[], int] | None = None) -> None:
        """Nothing is used yet.

        Args:
            limits: the ceilings.
            free_bytes: tells how much room the host has, if what is accounted for takes any.
        """
        self.limits = limits
        self._free_bytes = free_bytes
        self._next_look = _LOOK_BYTES
        self._lock = threading.Lock()
        self._inflated = 0
        self._entries = 0
        self._metadata = 0
        self._steps = 0

    def spend_inflated(self, count: int) -> None:
        """Account for ``count`` bytes that came out of a decompressor; raises ``exhausted`` before the disk is full."""
        with self._lock:
            self._inflated += count
            inflated, total = self._inflated, self.limits.total_bytes
            is_time_to_look = inflated >= self._next_look
            if is_time_to_look:
                self._next_look = inflated + _LOOK_BYTES
        if inflated > total:
            raise self._too_much()
        if is_time_to_look and self._free_bytes:
            self._require_room(self._free_bytes(), inflated)

    def announce(self, count: int) -> None:
        """Refuse ``count`` bytes that are about to be read if they are too many: none of them need be written."""
        with self._lock:
            expected = self._inflated + count
        if expected - _READ_AHEAD_BYTES > self.limits.total_bytes:
            raise self._too_much()

    def _too_much(self) -> BangerError:
        most, setting = format_size(self.limits.total_bytes), self.limits.total_setting
        if not setting:
            return refused(f"the layers unpack to more than {most}")
        hint = f"if you trust the image, raise {setting} in config.toml"
        return refused(f"the layers unpack to more than {most}, which is the limit ({setting})", hint)

    def _require_room(self, free_bytes: int, inflated: int) -> None:
        if free_bytes >= self.limits.reserve_bytes:
            return
        limit = f"{format_size(self.limits.total_bytes)} ({self.limits.total_setting or 'a fixed limit'})"
        raise BangerError(
            ErrorKind.EXHAUSTED,
            f"the disk is nearly full: {format_size(inflated)} of the image are unpacked, and there is more to come",
            cause=f"{format_size(free_bytes)} free; an image may unpack to {limit}",
            hint="banger system df",
        )

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
