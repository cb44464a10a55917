"""What a test session may have left on the host: processes, loop devices, mounts, taps, temporary trees.

Everything the session starts inherits ``BANGER_TEST_SESSION`` and a ``TMPDIR`` of the session's own, so that what is
found is ours for sure, also on a machine where other things (or another test session) run at the same time.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import eventually_empty

SESSION_VARIABLE = "BANGER_TEST_SESSION"


@dataclass(frozen=True, slots=True)
class HostState:
    """What is on the host that a session could leave behind; each entry reads as a line of a report."""

    processes: frozenset[str]
    loops: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    trees: frozenset[str]

    @classmethod
    def now(cls, root: Path) -> HostState:
        """Look: everything of the session whose directory is ``root``."""
        return cls(
            processes=frozenset(f"process {pid}: {command}" for pid, command in session_processes(root)),
            loops=frozenset(_loops(root)),
            mounts=frozenset(_mounts(root)),
            links=frozenset(_taps()),
            trees=frozenset(f"file {path}" for path in (root / "tmp").glob("*")),
        )

    def beyond(self, earlier: HostState) -> list[str]:
        """What is here now and was not there earlier."""
        pairs = [(getattr(self, name), getattr(earlier, name)) for name in self.__slots__]
        return sorted(line for now, before in pairs for line in now - before)


def leaks_since(before: HostState, root: Path, timeout_s: float = 10.0) -> list[str]:
    """Everything new, after a moment's patience for processes that are just ending."""
    return eventually_empty(lambda: HostState.now(root).beyond(before), timeout_s)


def session_processes(root: Path) -> Iterator[tuple[int, str]]:
    """Process id and command line of all that belongs to the session, except this process itself."""
    marks = (f"{SESSION_VARIABLE}={os.environ.get(SESSION_VARIABLE, '')}".encode(), os.fsencode(root))
    for pid in all_pids():
        if pid == os.getpid():
            continue
        command = _read(Path(f"/proc/{pid}/cmdline"))
        if command and (marks[1] in command or marks[0] in _read(Path(f"/proc/{pid}/environ"))):
            yield pid, command.replace(b"\0", b" ").decode(errors="replace").strip()[:200]


def sweep_dead_sessions(root: Path) -> None:
    """Remove what sessions before that of ``root`` left because they were killed themselves; live ones are spared.

    A session's directory is named ``bgt-PID-…``.
    """
    for other in root.parent.glob("bgt-*-*"):
        pid = other.name.split("-")[1]
        if other == root or not pid.isdigit() or b"pytest" in _read(Path(f"/proc/{pid}/cmdline")):
            continue
        for process in [process for process in all_pids() if mentions(process, other)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(other, ignore_errors=True)


def all_pids() -> list[int]:
    """The ids of all processes that this user can see."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def mentions(pid: int, path: Path) -> bool:
    """True if a process's command line or environment names a path: how a process is known to belong to a home."""
    mark = os.fsencode(path)
    return any(mark in _read(Path(f"/proc/{pid}/{file}")) for file in ("cmdline", "environ"))


def stray_threads(before: Sequence[threading.Thread], timeout_s: float = 3.0) -> list[str]:
    """Names of live non-daemon threads that were not there before."""
    return eventually_empty(
        lambda: [
            thread.name
            for thread in threading.enumerate()
            if thread not in before and not thread.daemon and thread.is_alive()
        ],
        timeout_s,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _loops(root: Path) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        file = _read(backing).decode(errors="replace").strip()
        if str(root) in file:
            yield f"loop device {backing.parts[3]} on {file}"


def _mounts(root: Path) -> Iterator[str]:
    for line in _read(Path("/proc/self/mountinfo")).decode(errors="replace").splitlines():
        if str(root) in line:
            yield f"mount {line.split()[4]}"


def _taps() -> Iterator[str]:
    for flags in Path("/sys/class/net").glob("*/tun_flags"):
        yield f"tap {flags.parts[4]}"
