"""The CPU time of a process: time that a busy host did not give, a guest cannot have used."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, guests' included; 0 if it is gone.

    Fields 14 and 15 of ``/proc/PID/stat`` (proc(5)); what a guest uses on KVM is counted as user time too.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = text[text.rindex(")") + 1 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def threads_named(name: str, pid: int) -> list[Path]:
    """The directories in ``/proc`` of those threads of a process whose name begins with ``name``."""
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        return [one for one in threads if (one / "comm").read_text(errors="replace").startswith(name)]
    except OSError:  # it is going
        return []


def thread_times_ns(pid: int, name: str) -> dict[int, int]:
    """How long each thread has run whose name begins with ``name``, in nanoseconds, by its id (Linux: sched-stats)."""
    times: dict[int, int] = {}
    with suppress(OSError):  # it is going
        for thread in threads_named(name, pid):
            times[int(thread.name)] = int((thread / "schedstat").read_text().split()[0])
    return times
