"""How large a machine is: what is asked for one VM, and what an image suggests for its own."""

from __future__ import annotations

from dataclasses import dataclass

from banger.core.units import GIB, MIB, TIB, format_size
from banger.core.wire import reading
from banger.core.wire.facts import Facts, described

MOST_CPUS = 1024
#: What a host has is asked elsewhere; this only keeps numbers that overflow out.
_MOST_MEMORY_MIB = 1 << 32
#: What an ext4 with blocks of 4 KiB can have is more; a sparse disk of that size is still made in a moment.
MOST_DISK_MIB = 16 * TIB // MIB


def _size_words(most_mib: int) -> str:
    return f"{most_mib} ({format_size(most_mib * MIB)}; {GIB // MIB} is a GiB)"


CPUS = Facts(
    "Virtual CPUs.",
    ("--cpus",),
    "N",
    "0: the image's default, or the setting; likewise for memory and disk. A created VM has the actual values.",
    read=reading.cpu_count,
    is_blank_a_value=True,
    setting="vm.cpus",
    most=MOST_CPUS,
)
MEMORY_MIB = Facts(
    "Memory: 512M, 2G; a bare number is MiB.",
    ("--memory", "-m"),
    "SIZE",
    read=reading.mebibytes,
    setting="vm.memory_mib",
    most=_MOST_MEMORY_MIB,
    most_words=_size_words(_MOST_MEMORY_MIB),
)
DISK_MIB = Facts(
    "Size of the writable disk (sparse).",
    ("--disk",),
    "SIZE",
    read=reading.mebibytes,
    setting="vm.disk_mib",
    most=MOST_DISK_MIB,
    most_words=_size_words(MOST_DISK_MIB),
)


@dataclass(frozen=True, slots=True)
class DefaultSizes:
    """What VMs of an image should get unless somebody says otherwise; 0 leaves it to the host."""

    cpus: int = described(0, CPUS)
    memory_mib: int = described(0, MEMORY_MIB)
    disk_mib: int = described(0, DISK_MIB)


NO_SIZES = DefaultSizes()
