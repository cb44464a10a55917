"""Reading the kernel's log for processes that the OOM killer ended."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from banger.core.models import ProcessIdentity

_DEVICE = Path("/dev/kmsg")
#: One record of ``/dev/kmsg`` (kernel: Documentation/ABI/testing/dev-kmsg) is at most this long.
_RECORD_BYTES = 8192
_KILLED = re.compile(r"[Oo]ut of memory: Killed process (\d+) ")


def tells_of_oom_kill(identity: ProcessIdentity, device: Path = _DEVICE) -> bool:
    """True if the log tells that this process was killed; False also where we may not read the log."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return identity.known and was_oom_killed(records(device), identity.pid, identity.start_ticks / ticks_per_s)


def was_oom_killed(log: Iterator[str], pid: int, since_s: float) -> bool:
    """True if the log tells that ``pid`` was killed later than ``since_s`` seconds after the host's start. Pure."""
    for record in log:
        head, _, message = record.partition(";")
        killed = _KILLED.search(message)
        if killed and int(killed[1]) == pid and int(head.split(",")[2]) >= since_s * 1_000_000:
            return True
    return False


def records(device: Path = _DEVICE) -> Iterator[str]:
    """Every record that the kernel still has; none where we may not read them."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while True:
            try:
                record = os.read(descriptor, _RECORD_BYTES)
            except BrokenPipeError:  # overwritten before it was read: the next read gives the oldest there is
                continue
            except OSError:
                return
            if not record:
                return
            yield record.decode(errors="replace")
    finally:
        os.close(descriptor)
