"""What a running guest says about itself. All of it is the guest's word: figures to show, nothing to rely on."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """Milliseconds of all CPUs together since the guest's boot; ``total_ms`` includes idle time."""

    count: int = 0
    busy_ms: int = 0
    total_ms: int = 0


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """As the guest's kernel counts it, without what that keeps for itself from the start."""

    total_bytes: int = 0
    free_bytes: int = 0
    available_bytes: int = 0
    cached_bytes: int = 0
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A mounted file system on a disk, or the root; ``available_bytes`` is what users other than root may take."""

    mount_point: str
    type: str
    total_bytes: int = 0
    free_bytes: int = 0
    available_bytes: int = 0
    files: int = 0
    files_free: int = 0


@dataclass(frozen=True, slots=True)
class NetFacts:
    """A network interface, with its addresses as ADDRESS/PREFIX, and what it has moved since boot."""

    name: str
    mac: str = ""
    mtu: int = 0
    is_up: bool = False
    received_bytes: int = 0
    sent_bytes: int = 0
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """One look at a guest.

    Attributes:
        clock_ns: its wall clock, nanoseconds since 1970.
        uptime_ms: since its boot.
        load1, load5, load15: load averages.
        processes: how many there are; ``running`` of them want a CPU now.
    """

    clock_ns: int = 0
    uptime_ms: int = 0
    kernel: str = ""
    hostname: str = ""
    machine_id: str = ""
    boot_id: str = ""
    load1: float = 0.0
    load5: float = 0.0
    load15: float = 0.0
    processes: int = 0
    running: int = 0
    cpu: CpuFacts = field(default_factory=CpuFacts)
    memory: MemoryFacts = field(default_factory=MemoryFacts)
    disks: tuple[DiskFacts, ...] = ()
    nets: tuple[NetFacts, ...] = ()
