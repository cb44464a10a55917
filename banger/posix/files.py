"""Files of this host: making what was written last, and reading what may not be there."""

from __future__ import annotations

import os
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


def text_or_empty(path: Path) -> str:
    """The text of a small file, above all of ``/proc``, ``/sys`` and ``/etc``; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
