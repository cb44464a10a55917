"""Directories of test sessions: made, claimed as long as their processes live, and swept when those died without a word.

A session is one process that runs tests: pytest itself, or one of the workers that it has started side by side. What it
starts inherits ``BANGER_TEST_SESSION`` and a ``TMPDIR`` below its directory.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.leaks import all_pids, loops_below, mentions, mounts_below
from tests.support.waiting import eventually_empty

#: Short, because paths of Unix sockets below it must stay under 108 bytes. The same whatever ``TMPDIR`` says.
PLACE = Path("/tmp")
#: A file system in memory, if the host has one with this much room for small files.
MEMORY = Path("/dev/shm")
_ENOUGH_MEMORY = 32 << 20
_PREFIX = "bgt-"
_CLAIM = ".claim"

#: Of the running session.
ROOT = pytest.StashKey["SessionRoot"]()


class SessionRoot:
    """A session's directory, with ``tmp`` in it as everybody's ``TMPDIR`` and an empty ``home``; a lock shows that somebody needs it.

    ``memory`` in it leads to where nothing waits for a disk, if there is such a place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim = os.open(path / _CLAIM, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._claim, fcntl.LOCK_SH)

    @classmethod
    def make(cls) -> SessionRoot:
        """A new one, claimed before anybody can take it for a dead one's."""
        hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=PLACE))
        root = cls(hidden)
        root.path = hidden.with_name(hidden.name[1:])
        hidden.rename(root.path)
        root.path.chmod(0o711)
        (root.path / "tmp").mkdir()
        (root.path / "tmp").chmod(0o1777)
        (root.path / "home").mkdir(mode=0o700)
        (root.path / "memory").symlink_to(_place_in_memory(root.path))
        return root

    def abandon(self) -> None:
        """Give the claim up, as when the process ends."""
        os.close(self._claim)

    def close(self) -> None:
        """Remove the directory, with whatever is still there of the session."""
        self.abandon()
        put_away(self.path)


def sweep_dead_sessions() -> None:
    """Remove what sessions left whose processes were killed themselves; those that are claimed are spared."""
    for root in PLACE.glob(f"{_PREFIX}????????"):
        try:
            claim = os.open(root / _CLAIM, os.O_RDWR)
        except OSError:
            continue  # not a session's, or not this user's
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            put_away(root)
        finally:
            os.close(claim)


def processes_of(root: Path) -> list[int]:
    """All that have the directory in their command line or environment, but for this one."""
    return [pid for pid in all_pids() if pid != os.getpid() and mentions(pid, root)]


def put_away(root: Path) -> None:
    """End the processes of a session, take down its mounts and loop devices, and remove its directory."""

    for pid in processes_of(root):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually_empty(lambda: processes_of(root), 10.0)
    for mount in mounts_below(root):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    for loop, _ in loops_below(root):
        subprocess.run(["losetup", "--detach", f"/dev/{loop}"], capture_output=True, check=False)
    if not mounts_below(root):  # what is behind one is not the session's to remove
        shutil.rmtree((root / "memory").resolve(), ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)


def _place_in_memory(root: Path) -> Path:
    """A directory of the session's own that is in memory, or at least the session's own."""
    try:
        room = os.statvfs(MEMORY)
        if room.f_bavail * room.f_frsize >= _ENOUGH_MEMORY:
            place = MEMORY / root.name
            place.mkdir(mode=0o711)
            return place
    except OSError:
        pass
    place = root / "no-memory"
    place.mkdir(mode=0o711)
    return place
