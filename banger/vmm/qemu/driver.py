"""The QEMU driver: machines are started by a command line and controlled through their monitor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from banger.config import Config
from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import ExitRecord, Outcome
from banger.core.models import ProcessIdentity
from banger.core.ports import (
    AgentCarrier,
    Condition,
    DeviceKind,
    Drive,
    KernelFormat,
    Machine,
    SavedMachine,
    TapNic,
    UserNic,
    VmmConfig,
)
from banger.core.wire.vm_spec import VmSpec
from banger.launch import Launching
from banger.layout import Layout
from banger.vmm import identity as processes
from banger.vmm.exits import explain_exit
from banger.vmm.log_files import log_tail, make_room, note_command
from banger.vmm.qemu import failures, health, launch, loading, probe, qmp
from banger.vmm.qemu.arguments import ACCELERATORS, AGENT_NODE, MACHINE, MACHINES, Handed, choose, command_line
from banger.vmm.qemu.binary import find_binary
from banger.vmm.qemu.engines import QemuEngines
from banger.vmm.qemu.loaded_memory import loaded_memory
from banger.vmm.qemu.saving import Saving, command_of, cpu_of, go_on
from banger.vmm.qemu.state_lines import obstacle_of
from banger.vmm.saved import check_fits, check_loadable

_COMMAND_TIMEOUT_S = 5.0
#: A machine is looked at all the time, and one that is too busy to answer now is looked at again.
_LOOK_TIMEOUT_S = 1.0


class QemuDriver:
    """Implements :class:`banger.core.ports.VmmDriver`. Keeps nothing about a VM: all it knows is on the host."""

    name = "qemu"
    devices: Collection[DeviceKind] = (Drive, UserNic, TapNic)
    holds_writes = True
    names_drives = True
    has_power_switch = True
    kernel_format = KernelFormat.AS_IT_IS
    agent_carrier = AgentCarrier.SERIAL

    def __init__(self, config: Config, layout: Layout, launching: Launching) -> None:
        self._config = config
        self._layout = layout
        self._launching = launching
        self._engines = QemuEngines(config, layout)

    @property
    def engines(self) -> QemuEngines:
        """What its machines may run on."""
        return self._engines

    def options(self, spec: VmSpec) -> Mapping[str, str]:
        """The type of the machine. Raises ``usage`` for one, or an accelerator, that it does not know."""
        machine = self._machine(spec)
        choose(MACHINES, machine, "machine")
        if spec.accelerator:
            choose(ACCELERATORS, spec.accelerator, "accelerator")
        return {MACHINE: machine}

    def version(self) -> str:
        """What the installed QEMU tells."""
        return find_binary().version

    def obstacle(self, kernel_digest: str) -> str:  # noqa: ARG002  # it emulates what KVM does not run
        """That it is not installed."""
        try:
            find_binary()
        except BangerError as error:
            return error.message
        return ""

    def alternative(self, spec: VmSpec) -> str:
        """The other one of its two types."""
        return "--machine " + next(name for name in reversed(MACHINES) if name != self._machine(spec))

    def launch(
        self, config: VmmConfig, on_spawn: Callable[[ProcessIdentity], None], token: CancelToken | None = None
    ) -> ProcessIdentity:
        """Start the process so that it outlives the daemon, and return once the machine runs, or stands as it was."""
        binary = find_binary()
        tsc_khz = probe.tsc_khz(self._layout) if config.accelerator == "tcg" else 0
        cpu = cpu_of(choose(ACCELERATORS, config.accelerator, "accelerator")[1])
        saved = check_loadable(config, vmm=self.name, version=binary.version, cpu=cpu)
        make_room(config.console_log, config.vmm_log)

        def noted(argv: Sequence[str]) -> Sequence[str]:
            note_command(config.vmm_log, binary.version, argv)
            return argv

        def booting(handed: Handed) -> Sequence[str]:
            return command_line(binary, config, handed, tsc_khz)

        if saved is None:
            program = launch.Program(binary, lambda handed: noted(booting(handed)))
            return launch.launch(config, program, on_spawn, self._launching, token=token)
        with loaded_memory(config, saved, binary, token) as memory:
            program = launch.Program(
                binary,
                lambda handed: noted(loading.line(config, saved, booting(handed), memory)),
                settle=partial(loading.load, saved, config.vmm_log),
                memory=memory,
            )
            return launch.launch(config, program, on_spawn, self._launching, token=token)

    def save_obstacle(self, machine: Machine) -> str:
        """That a part of the machine is outside of it."""
        return obstacle_of(command_of(machine))

    def save(
        self,
        machine: Machine,
        into: Path,
        standing: Callable[[], None],
        on_spawn: Callable[[ProcessIdentity], None],
        token: CancelToken | None = None,
    ) -> SavedMachine:
        """Have another QEMU take over the machine's state, see ``saving``."""
        return Saving(machine, find_binary(), self._launching, on_spawn, token).save(into, standing)

    def check_saved(self, saved: SavedMachine, name: str) -> None:
        """That the same release on the same CPU has saved it."""
        cpu = cpu_of(choose(ACCELERATORS, saved.accelerator, "accelerator")[1])
        check_fits(saved, name, vmm=self.name, version=find_binary().version, cpu=cpu, accelerator=saved.accelerator)

    def condition(self, machine: Machine, token: CancelToken | None = None) -> Condition:
        """What its monitor says; of one that does not answer nothing is known, and it will be asked again."""
        if not processes.is_same(machine.identity):
            return Condition()
        try:
            with qmp.session(launch.qmp_path(machine.run_dir), Deadline.after(_LOOK_TIMEOUT_S), token) as session:
                status = session.execute("query-status")["status"]
                disks = session.execute("query-block") if status == health.IO_ERROR else ()
        except qmp.QmpError:
            return Condition()
        log = log_tail(machine.vmm_log, machine.log_offset) if status == health.INTERNAL_ERROR else ""
        return health.condition(status, disks, log)

    def hears_agent(self, run_dir: Path) -> bool:
        """What its monitor says of the port's end in the guest."""
        try:
            with qmp.session(launch.qmp_path(run_dir), Deadline.after(_LOOK_TIMEOUT_S)) as session:
                ends = session.execute("query-chardev")
        except qmp.QmpError:
            return True
        return all(end.get("frontend-open", True) for end in ends if end.get("label") == AGENT_NODE)

    def exit_record(self, machine: Machine, outcome: Outcome, console: str) -> ExitRecord:
        """Why the machine ended; QEMU's own words are in its log."""
        return explain_exit(outcome, console, failures.last_lines(log_tail(machine.vmm_log)), failures.ended_by_signal)

    def error_counters(self, vmm_log: Path) -> Mapping[str, int]:  # noqa: ARG002
        """None: it tells of what goes wrong when that happens."""
        return {}

    def power_down(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Press the ACPI power button; a machine that is gone already is success."""
        self._tell(machine, lambda monitor: monitor.execute("system_powerdown"), "take the power button", token)

    def pause(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Stop the machine's CPUs; one that stands still already is success, and so is one that is gone."""
        self._tell(machine, lambda monitor: monitor.execute("stop"), "stand still", token)

    def resume(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Let the machine go on; one that runs is success, and so is one that is gone."""
        self._tell(machine, go_on, "go on", token)

    def _machine(self, spec: VmSpec) -> str:
        return spec.machine or self._config.text("vmm.machine")

    def _tell(
        self, machine: Machine, act: Callable[[qmp.QmpSession], object], meaning: str, token: CancelToken | None
    ) -> None:
        identity = machine.identity
        if not processes.is_same(identity):
            return
        try:
            with qmp.session(launch.qmp_path(machine.run_dir), Deadline.after(_COMMAND_TIMEOUT_S), token) as session:
                act(session)
        except qmp.QmpError as error:
            if not processes.is_same(identity):
                return
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f"the VMM process {identity.pid} does not {meaning}",
                subject=identity.marker,
                cause=str(error),
            ) from error
