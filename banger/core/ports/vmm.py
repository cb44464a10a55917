"""The ports for running machines: a driver for each VMM, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from banger.core.cancel import CancelToken
from banger.core.exits import ExitRecord, Outcome
from banger.core.models import ProcessIdentity
from banger.core.ports.machine import AgentCarrier, Condition, DeviceKind, KernelFormat, Machine, VmmConfig
from banger.core.ports.machine_state import SavedMachine
from banger.core.wire.vm_spec import VmSpec

if TYPE_CHECKING:
    from banger.core.ports.engines import Engines
    from banger.core.ports.host import HostObject  # which needs the module of machines


class VmmDriver(Protocol):
    """Starts and steers machines of one VMM. Every method may be repeated; none holds state of its own about a VM.

    Attributes:
        name: as in ``vmm.driver`` and in the row of a VM.
        devices: the kinds of devices that it can give a machine.
        holds_writes: a write that the host does not take stops the machine until it does, see :class:`Condition`;
            otherwise the guest is told of an I/O error.
        names_drives: the guest sees the label of each drive, as its serial number; otherwise it goes by their order.
        has_power_switch: the machine ends when its guest powers off; otherwise only when that reboots.
        kernel_format: how its machines take their kernel.
        agent_carrier: how the agents in its machines are reached.
    """

    name: str
    devices: Collection[DeviceKind]
    holds_writes: bool
    names_drives: bool
    has_power_switch: bool
    kernel_format: KernelFormat
    agent_carrier: AgentCarrier

    @property
    def engines(self) -> Engines:
        """What its machines may run on."""
        ...

    def options(self, spec: VmSpec) -> Mapping[str, str]:
        """What it takes from ``spec`` and from the settings, for :class:`VmmConfig`. Asked before anything is made.

        Raises:
            BangerError: ``usage`` for what it does not know or cannot do.
        """
        ...

    def version(self) -> str:
        """Which release of the VMM a start takes now, as it tells itself. Raises ``unavailable`` if there is none."""
        ...

    def obstacle(self, kernel_digest: str) -> str:
        """Why no machine with that kernel should be run on it here, in one line; empty if nothing is known against it.

        The digest is empty while the kernel is not known.
        """
        ...

    def alternative(self, spec: VmSpec) -> str:
        """What to type for another machine where that of ``spec`` does not do; empty if there is none."""
        ...

    def launch(
        self, config: VmmConfig, on_spawn: Callable[[ProcessIdentity], None], token: CancelToken | None = None
    ) -> ProcessIdentity:
        """Start the process so that it outlives the daemon, and return once the machine runs.

        One that begins with a saved machine stands still instead, until it is resumed; nobody calls its guest's agent
        before that, to which the host's end of its stream is another one afterwards.

        ``on_spawn`` is called as soon as the process exists, before anything can fail: it writes the handle down.
        Raises ``cancelled`` soon after ``token`` is, ``unavailable`` with
        the VMM's own words otherwise, or if another VMM, version or CPU has saved the machine; then no process is left.
        """
        ...

    def save_obstacle(self, machine: Machine) -> str:
        """Why this machine cannot be saved, in one line; empty if nothing is known against it. Changes nothing."""
        ...

    def save(
        self,
        machine: Machine,
        into: Path,
        standing: Callable[[], None],
        on_spawn: Callable[[ProcessIdentity], None],
        token: CancelToken | None = None,
    ) -> SavedMachine:
        """Save a machine, which runs on meanwhile, and stands still for the last moment only.

        In that moment ``standing`` is called, once: all that the guest has written to its disks is in their files, and
        nothing more comes. Afterwards the machine goes on, in the same process, whatever happened; one that was paused
        stays so. What was saved is on the disk, but not the entries in ``into``, which exists and is the caller's.

        If the driver needs a process for it, that is marked with :func:`banger.core.names.saver_marker`, and
        ``on_spawn`` is called as in :meth:`launch`; it is gone when this returns. Of a save that nobody ended, because
        the daemon was killed, that process has to be killed, and the machine resumed.

        Raises:
            BangerError: ``cancelled`` soon after ``token`` is, ``exhausted`` without room, ``conflict`` for a machine
                that does not run, ``unavailable`` with the VMM's own words; or what ``standing`` raises. Neither file
                nor process is left then, and the machine is as it was before.
        """
        ...

    def check_saved(self, saved: SavedMachine, name: str) -> None:
        """Refuse a saved machine that :meth:`launch` would not load for the VM ``name``, before anything is touched.

        Raises:
            BangerError: ``unavailable``, for what can be told without loading it.
        """
        ...

    def condition(self, machine: Machine, token: CancelToken | None = None) -> Condition:
        """How the machine is; of one that does not answer, or is gone, nothing bad is known: it "runs".

        Like every method that waits for the VMM, it raises ``cancelled`` soon after ``token`` is.
        """
        ...

    def hears_agent(self, run_dir: Path) -> bool:
        """False if nobody in a machine's guest has the agent's stream open; True also if that cannot be told."""
        ...

    def exit_record(self, machine: Machine, outcome: Outcome, console: str) -> ExitRecord:
        """Why the machine ended, from how its process did and what ``console`` holds: its guest's words."""
        ...

    def error_counters(self, vmm_log: Path) -> Mapping[str, int]:
        """What went wrong in the machine with that log, and how often, as far as its VMM counts it: names are its own.

        Nothing is said of a VMM that does not count.
        """
        ...

    def power_down(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Ask the guest to power off by the VMM's own means (a button, a key); returns at once."""
        ...

    def pause(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Stop the machine's CPUs; what is in memory stays. Pausing a paused machine is success."""
        ...

    def resume(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Let a machine go on that stands still, for whatever reason; one that runs is success.

        A save of it that nobody ended is given up. One that waited for the host to take a write tries that again, and
        may stand still again at once.
        """
        ...


class VmmProcesses(Protocol):
    """The processes of VMMs, whichever driver started them: found, proven to be ours, and ended."""

    def find(self, marker: str) -> ProcessIdentity | None:
        """The process whose command line carries ``marker``: for a handle that was intended but never recorded."""
        ...

    def of_this_boot(self, identity: ProcessIdentity) -> bool:
        """False if the host rebooted since: then every runtime handle is void."""
        ...

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """True if this very process lives (boot id, pid, start time and command line agree)."""
        ...

    def cpu_seconds(self, identity: ProcessIdentity) -> float:
        """Processor time that the process has used, its guest's included; 0 if it is gone."""
        ...

    def kill(self, identity: ProcessIdentity, timeout_s: float = 10.0) -> None:
        """End the process through its pidfd and wait until it is gone; already gone is success."""
        ...

    def wait_exit(self, identity: ProcessIdentity, timeout_s: float, token: CancelToken | None = None) -> bool:
        """Wait until the process is gone; False on timeout, and soon after ``token`` is cancelled."""
        ...

    def outcome(self, vm_id: str, identity: ProcessIdentity) -> Outcome:
        """How the process ended. Ask once it is gone, and before what it was started in is released."""
        ...


class VmmLauncher(Protocol):
    """How processes of VMMs are started here, and what there is of that on the host besides them."""

    def describe(self) -> Mapping[str, object]:
        """``{name, reason, limited, unlimited_because, jailed, unjailed_because}``, for people."""
        ...

    def holds(self, vm_id: str) -> Sequence[tuple[str, str]]:
        """Kind and key of what a launch makes on the host besides the process: to be intended before it."""
        ...

    def release(self, kind: str, key: str) -> None:
        """Take down one of what :meth:`holds` told, also of an earlier start; already gone is success."""
        ...

    def host_objects(self) -> Sequence[HostObject]:
        """Everything of those kinds on the host that carries this installation's id."""
        ...
