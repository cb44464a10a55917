"""What a test session may have left on the host: processes, loop devices, mounts, taps, temporary trees.

Everything the session starts inherits ``BANGER_TEST_SESSION`` and a ``TMPDIR`` of the session's own, so that what is
found is ours for sure, also on a machine where other things (or another test session) run at the same time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.network.names import Alias
from tests.support.waiting import eventually_empty

SESSION_VARIABLE = "BANGER_TEST_SESSION"
#: In a session's directory: the ids of the installations that it had.
INSTALLATIONS = "installations"
#: Seconds that what is just ending has.
PATIENCE_S = 10.0


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
            loops=frozenset(f"loop device {loop} on {file}" for loop, file in loops_below(root)),
            mounts=frozenset(f"mount {point}" for point in mounts_below(root)),
            links=frozenset(f"tap {name}" for name in taps(root)),
            trees=frozenset(f"file {path}" for place in ("tmp", "memory") for path in (root / place).glob("*")),
        )

    def beyond(self, earlier: HostState) -> list[str]:
        """What is here now and was not there earlier."""
        pairs = [(getattr(self, name), getattr(earlier, name)) for name in self.__slots__]
        return sorted(line for now, before in pairs for line in now - before)


def leaks_since(before: HostState, root: Path, timeout_s: float | None = None) -> list[str]:
    """Everything new, after a moment's patience for processes that are just ending."""
    patience_s = PATIENCE_S if timeout_s is None else timeout_s
    return eventually_empty(lambda: HostState.now(root).beyond(before), patience_s)


def session_processes(root: Path) -> Iterator[tuple[int, str]]:
    """Process id and command line of all that belongs to the session, except this process itself."""
    marks = (f"{SESSION_VARIABLE}={os.environ.get(SESSION_VARIABLE, '')}".encode(), os.fsencode(root))
    for pid in all_pids():
        if pid == os.getpid():
            continue
        command = _read(Path(f"/proc/{pid}/cmdline"))
        if command and (marks[1] in command or marks[0] in _read(Path(f"/proc/{pid}/environ"))):
            yield pid, command.replace(b"\0", b" ").decode(errors="replace").strip()[:200]


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


def loops_below(root: Path) -> Iterator[tuple[str, str]]:
    """Loop devices on files below a directory: name and file."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        file = _read(backing).decode(errors="replace").strip()
        if str(root) in file:
            yield backing.parts[3], file


def note_installation(root: Path, mark: Path) -> None:
    """Remember the id of an installation of the session whose directory is ``root``; ``mark`` is its file, if any."""
    with (root / INSTALLATIONS).open("ab") as known:
        known.write(_read(mark) + b"\n")


def mounts_below(root: Path) -> list[str]:
    """Mount points that are below a directory, or of something that is; the last made first."""
    lines = _read(Path("/proc/self/mountinfo")).decode(errors="replace").splitlines()
    return [line.split()[4] for line in reversed(lines) if str(root) in line]


def taps(root: Path, interfaces: Path = Path("/sys/class/net")) -> Iterator[str]:
    """Taps that may be the session's. Not those that others have open, or whose alias names somebody else's banger."""
    for flags in interfaces.glob("*/tun_flags"):
        name, alias = flags.parent.name, _read(flags.with_name("ifalias")).decode(errors="replace").strip()
        said, holders = Alias.parse(alias), _holders_of_tap(name)
        is_foreign = said is not None and said.installation_id not in _read(root / INSTALLATIONS).decode().split()
        if not is_foreign and (not holders or holders & {pid for pid, _ in session_processes(root)}):
            yield name


def _holders_of_tap(name: str) -> set[int]:
    """The processes that have a tap open; the kernel tells with their descriptors (``tun_chr_show_fdinfo``)."""
    return {
        int(information.parts[2])
        for information in Path("/proc").glob("[0-9]*/fdinfo/*")
        if f"iff:\t{name}\n".encode() in _read(information)
    }
