"""Reserved disk space, which is released on a full disk so that deletions can be recorded.

It is a file of its own in the state directory. Whatever frees room, or ends what takes it, gives it up first if next to
nothing is free; so does a daemon that starts. Once there is plenty again, the daemon sets it aside anew. It is also one
inode, and counts towards its user's quota: that next to nothing is free is found by trying, too.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from loguru import logger

from banger.core.units import MIB
from banger.layout import Layout

#: The rows of some hundred VMs, their journals and what the daemon writes as it starts.
RESERVE_BYTES = 8 * MIB
#: Below this nothing can be relied on to be written.
_LITTLE_BYTES = 2 * MIB
#: A journal's growth: what cannot even be had where blocks are free, but none for this user.
_PROBE_BYTES = 256 * 1024
#: Above this nobody misses the reserve.
_PLENTY_BYTES = 64 * MIB
_NAME = "reserve"


def give_up(layout: Layout) -> None:
    """Free it if next to nothing else is free. Never raises."""
    path = layout.data / _NAME
    with suppress(OSError):
        if path.exists() and (shutil.disk_usage(layout.data).free < _LITTLE_BYTES or not _can_write(layout.data)):
            path.unlink()
            logger.warning('the disk of "{}" is full: its reserve is given up, so that room can be made', layout.data)


def _can_write(directory: Path) -> bool:
    """False if there is no room for a small file: blocks, inodes and quotas run out each by itself."""
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            os.posix_fallocate(probe.fileno(), 0, _PROBE_BYTES)
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True


def set_aside(layout: Layout) -> None:
    """Make it, if it is not there and there is plenty of room. Never raises."""
    path = layout.data / _NAME
    try:
        if path.exists() or shutil.disk_usage(layout.data).free < _PLENTY_BYTES:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        logger.debug("no room is set aside: {}", error)
