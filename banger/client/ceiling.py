"""Limits of a copy to this host: a maximum that the user can raise, and the free disk space."""

from __future__ import annotations

import os

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import GIB, MIB, format_size

#: Far above what people copy; a guest that sends more is asked about.
MOST_BYTES = 64 * GIB
#: The block of most file systems: what an entry without content takes, and what content is rounded up to, as by du(1).
_BLOCK_BYTES = 4096
#: Left free of the host's file system: whoever fills it to the last byte hinders everybody on the host.
_RESERVE_BYTES = 64 * MIB
#: Written between two looks at the free room.
_LOOK_BYTES = 32 * MIB


class Ceiling:
    """The running account of one copy. Sparse files count with the size that reading them gives."""

    def __init__(self, most_bytes: int, room_of: int | None = None) -> None:
        """Nothing has come yet.

        Args:
            most_bytes: what may come in all.
            room_of: descriptor on the file system that it is written to; ``None`` writes nothing here.
        """
        self._most = most_bytes
        self._room_of = room_of
        self._count = 0
        self._written = self._next_look = 0

    def add_entry(self, size_bytes: int = 0) -> None:
        """Account for a file of this size, a directory or a link, before it is made. Raises as :meth:`add`."""
        self.add(max(1, -(-size_bytes // _BLOCK_BYTES)) * _BLOCK_BYTES)

    def add(self, size_bytes: int) -> None:
        """Account for so much more.

        Raises:
            BangerError: ``exhausted`` if that is more than may come.
        """
        self._count += size_bytes
        if self._count > self._most:
            more = f"--max-size {format_size(max(2 * self._most, GIB), spaced=False)}"
            raise BangerError(
                ErrorKind.EXHAUSTED,
                f"the guest sends more than {format_size(self._most)}, the limit of this copy",
                cause=f"with what came before it, this would be {format_size(self._count)}",
                hint=f"banger vm cp {more} SOURCE TARGET",
            )

    def about_to_write(self, size_bytes: int) -> None:
        """Look at the room, now and then. Raises ``exhausted`` before the file system is full."""
        self._written += size_bytes
        if self._room_of is None or self._written < self._next_look:
            return
        self._next_look = self._written + _LOOK_BYTES
        found = os.fstatvfs(self._room_of)
        free = found.f_bavail * found.f_frsize
        if free < _RESERVE_BYTES + size_bytes:
            raise BangerError(
                ErrorKind.EXHAUSTED,
                "there is not enough room for what the guest sends",
                cause=f"after {format_size(self._written)} of it, {format_size(free)} are left on this disk, "
                f"and {format_size(_RESERVE_BYTES)} are kept free",
            )
