"""Files of this host: making what was written last, and reading what may not be there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def sync_path(path: Path) -> None:
    """Flush a file's content, or the names in a directory, to the disk.

    A file that was made or renamed lasts only when its directory was synced as well (fsync(2)).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular(path: Path) -> bytes:
    """The content of a file that must be one: opening a pipe would wait for a writer, perhaps for ever.

    Raises:
        OSError: it is not there, cannot be read, or is something else (``EINVAL``).
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read()


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """As ``os.open``, but without waiting, and not for anything that is no regular file.

    Raises:
        OSError: as :func:`read_regular`.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def text_or_empty(path: Path) -> str:
    """The text of a small file, above all of ``/proc``, ``/sys`` and ``/etc``; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
