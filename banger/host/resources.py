"""What this host has to give: memory, disk, CPUs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import format_size


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
    return parse_meminfo(Path("/proc/meminfo").read_text())


def cpu_count() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def free_disk_bytes(path: Path) -> int:
    """Room for this user on the file system of ``path`` or of its nearest existing parent."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free


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


def check_disk(path: Path, needed_bytes: int) -> None:
    """Raise ``exhausted`` unless ``needed_bytes`` fit on the file system of ``path``."""
    free = free_disk_bytes(path)
    if needed_bytes <= free:
        return
    raise BangerError(
        ErrorKind.EXHAUSTED,
        f'not enough room in "{path}": {format_size(needed_bytes)} needed, {format_size(free)} free',
        subject=str(path),
        hint="banger system df",
    )
