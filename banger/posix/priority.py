"""Processes that are to be in nobody's way."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: A tenth of what others have: enough to come to an end on a host that has always something to do.
_LOW = 10


def lower_priority(pid: int) -> None:
    """Let a process, if it is there, have little of the processors where others want them: with all its threads.

    Threads that it starts later are like the one that starts them. Where the kernel groups processes by sessions, what
    counts is the group's own (sched(7), "The autogroup feature").
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(_LOW), encoding="ascii")
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _LOW)
