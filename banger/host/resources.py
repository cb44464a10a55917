"""The resources of this host: memory, CPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the host, in MiB; ``available_mib`` is what new processes can have without swapping."""

    total_mib: int
    available_mib: int


def parse_meminfo(text: str) -> Memory:
    """Read ``/proc/meminfo`` (proc(5)): lines of ``Name:  N kB``, where kB are KiB."""
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in text.splitlines()) if rest}
    return Memory(kib["MemTotal"] >> 10, kib.get("MemAvailable", kib["MemTotal"]) >> 10)


def memory() -> Memory:
    """The host's memory now."""
    return parse_meminfo(Path("/proc/meminfo").read_text(encoding="utf-8"))


def cpu_count() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def check_memory(memory_mib: int, host: Memory | None = None) -> None:
    """Raise ``exhausted`` for a machine that this host could never hold, whatever else is stopped."""
    host = host or memory()
    if memory_mib <= host.total_mib:
        return
    raise BangerError(
        ErrorKind.EXHAUSTED,
        f"the VM asks for {memory_mib} MiB of memory; this host has {host.total_mib} MiB",
        subject=str(memory_mib),
        hint=f"ask for less: --memory {max(128, host.available_mib // 2)}M",
    )
