"""What runs a machine, as a VM's owner sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from banger.core.cancel import CancelToken
from banger.core.exits import ExitRecord
from banger.core.models import PortForward, ProcessIdentity

if TYPE_CHECKING:
    from banger.core.ports.engines import Engines
    from banger.core.ports.host import HostObject  # which needs this module


#: In a VM's private directory, the socket behind which its guest's agent answers. No longer than that of the monitor.
AGENT_SOCKET = "ga.sock"
#: By this name the agent finds its end of that byte stream, where that is a serial port.
AGENT_PORT = "org.banger.agent"


@dataclass(frozen=True, slots=True)
class Drive:
    """A block device of a VM. ``serial`` names it inside the guest (at most 20 letters and digits)."""

    path: Path
    serial: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class UserNic:
    """A network card on the VMM's own user-mode stack; needs no privilege.

    Attributes:
        forwards: ports of this host's loopback; every one is already chosen.
        restricted: the guest reaches nothing; the forwards still reach the guest.
    """

    forwards: Sequence[PortForward] = ()
    restricted: bool = False


@dataclass(frozen=True, slots=True)
class TapNic:
    """A network card on a tap that exists already. ``mtu`` 0: the guest's default."""

    tap: str
    mac: str
    mtu: int = 0


Nic = UserNic | TapNic


@dataclass(frozen=True, slots=True)
class VmmConfig:
    """Everything a VMM driver needs to start one machine.

    Attributes:
        run_dir: private directory for sockets; paths in it stay under 108 bytes.
        cmdline: kernel arguments that the guest needs, without what the driver itself adds.
        nic: its network card.
    """

    vm_id: str
    name: str
    run_dir: Path
    kernel: Path
    initrd: Path
    cmdline: str
    cpus: int
    memory_mib: int
    drives: Sequence[Drive]
    nic: Nic
    machine: str
    accelerator: str
    console_log: Path
    vmm_log: Path


class Vmm(Protocol):
    """A VMM driver. Every method is safe to repeat; none holds state of its own about a VM."""

    name: str

    @property
    def engines(self) -> Engines:
        """What its machines may run on."""
        ...

    def launcher(self) -> Mapping[str, object]:
        """How processes are started here: ``{name, reason, limited, unlimited_because}``."""
        ...

    def launch(
        self, config: VmmConfig, on_spawn: Callable[[ProcessIdentity], None], token: CancelToken | None = None
    ) -> ProcessIdentity:
        """Start the process so that it outlives the daemon, and return once the machine runs.

        ``on_spawn`` is called as soon as the process exists, before anything can fail: it writes the handle down.
        Raises ``conflict`` if a forwarded port is taken, ``cancelled`` soon after ``token`` is, ``unavailable`` with
        the VMM's own words otherwise; then no process is left.
        """
        ...

    def holds(self, vm_id: str) -> Sequence[tuple[str, str]]:
        """Kind and key of what :meth:`launch` makes on the host besides the process: to be intended before it."""
        ...

    def release(self, kind: str, key: str) -> None:
        """Take down one of what :meth:`holds` told, also of an earlier start; already gone is success."""
        ...

    def host_objects(self) -> Sequence[HostObject]:
        """Everything of those kinds on the host that carries this installation's id."""
        ...

    def exit_record(self, vm_id: str, identity: ProcessIdentity, console: str, vmm_log: Path) -> ExitRecord:
        """How the process ended and why. Ask once it is gone and before :meth:`release`.

        ``console`` is what the guest printed since it was started.
        """
        ...

    def find(self, marker: str) -> ProcessIdentity | None:
        """The process whose command line carries ``marker``: for a handle that was intended but never recorded."""
        ...

    def cpu_seconds(self, identity: ProcessIdentity) -> float:
        """Processor time that the process has used, its guest's included; 0 if it is gone."""
        ...

    def breakdown(self, identity: ProcessIdentity, run_dir: Path, vmm_log: Path, *, since: int = 0) -> str:
        """Why the machine cannot go on although its process lives, in the VMM's words; empty if it can.

        ``since`` is where the VMM's log began to be about this process, in bytes.
        """
        ...

    def of_this_boot(self, identity: ProcessIdentity) -> bool:
        """False if the host rebooted since: then every runtime handle is void."""
        ...

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """True if this very process lives (boot id, pid, start time and command line agree)."""
        ...

    def power_down(self, identity: ProcessIdentity, run_dir: Path) -> None:
        """Ask the guest to power off by the VMM's own means (ACPI power button); returns at once."""
        ...

    def pause(self, identity: ProcessIdentity, run_dir: Path) -> None:
        """Stop the machine's CPUs; what is in memory stays. Pausing a paused machine is success."""
        ...

    def resume(self, identity: ProcessIdentity, run_dir: Path) -> None:
        """Let a paused machine go on; one that runs is success."""
        ...

    def kill(self, identity: ProcessIdentity, timeout_s: float = 10.0) -> None:
        """End the process through its pidfd and wait until it is gone; already gone is success."""
        ...

    def wait_exit(self, identity: ProcessIdentity, timeout_s: float, token: CancelToken | None = None) -> bool:
        """Wait until the process is gone; False on timeout, and soon after ``token`` is cancelled."""
        ...
