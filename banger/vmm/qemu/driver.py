"""The ``Vmm`` port on QEMU."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from banger.config import Config
from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import ExitRecord
from banger.core.models import ProcessIdentity
from banger.core.ports import HostObject, VmmConfig
from banger.launch import Launching
from banger.layout import Layout
from banger.vmm import identity as processes
from banger.vmm import kernel_log, probe
from banger.vmm.cpu_time import cpu_seconds
from banger.vmm.engines import QemuEngines
from banger.vmm.exits import explain_exit
from banger.vmm.log_files import log_tail, make_room, note_command
from banger.vmm.qemu import failures, launch, qmp
from banger.vmm.qemu.arguments import command_line
from banger.vmm.qemu.binary import find_binary

_COMMAND_TIMEOUT_S = 5.0


class QemuVmm:
    """Starts, finds and ends QEMU processes. Keeps nothing about a VM: all it knows is on the host."""

    name = "qemu"

    def __init__(self, config: Config, layout: Layout, launching: Launching) -> None:
        self._layout = layout
        self._launching = launching
        self._engines = QemuEngines(config, layout)

    @property
    def engines(self) -> QemuEngines:
        """What its machines may run on."""
        return self._engines

    def launcher(self) -> Mapping[str, object]:
        """How processes are started here; see :class:`banger.launch.Facts`."""
        return asdict(self._launching.facts())

    def launch(
        self, config: VmmConfig, on_spawn: Callable[[ProcessIdentity], None], token: CancelToken | None = None
    ) -> ProcessIdentity:
        """Start the process so that it outlives the daemon, and return once the machine runs."""
        binary = find_binary()
        tsc_khz = probe.tsc_khz(self._layout) if config.accelerator == "tcg" else 0

        make_room(config.console_log, config.vmm_log)

        def noted(qmp_fd: int) -> Sequence[str]:
            argv = command_line(binary, config, qmp_fd, tsc_khz)
            note_command(config.vmm_log, binary.version, argv)
            return argv

        return launch.launch(config, noted, on_spawn, self._launching, token=token)

    def holds(self, vm_id: str) -> Sequence[tuple[str, str]]:
        """Kind and key in the ledger of what a launch makes besides the process: its unit, or its cgroup."""
        return self._launching.holds(vm_id)

    def release(self, kind: str, key: str) -> None:
        """Take down what a launch made besides the process; already gone is success."""
        self._launching.release(kind, key)

    def host_objects(self) -> Sequence[HostObject]:
        """Every unit and cgroup of this installation."""
        return self._launching.host_objects()

    def exit_record(self, vm_id: str, identity: ProcessIdentity, console: str, vmm_log: Path) -> ExitRecord:
        """How the process ended and why, from all who know a part of it."""
        outcome = self._launching.outcome(vm_id)
        if outcome.status is None:
            outcome = replace(outcome, status=processes.exit_status(identity))
        if not outcome.out_of_memory and outcome.status in (None, -signal.SIGKILL):
            outcome = replace(outcome, out_of_memory=kernel_log.tells_of_oom_kill(identity))
        return explain_exit(outcome, console, failures.last_lines(log_tail(vmm_log)))

    def find(self, marker: str) -> ProcessIdentity | None:
        """The process whose command line carries ``marker``: for a handle that was intended but never recorded."""
        return processes.find(marker)

    def cpu_seconds(self, identity: ProcessIdentity) -> float:
        """Processor time that the process has used, its guest's included; 0 if it is gone."""
        return cpu_seconds(identity.pid) if processes.is_same(identity) else 0.0

    def breakdown(self, identity: ProcessIdentity, run_dir: Path, vmm_log: Path, *, since: int = 0) -> str:
        """QEMU's words about a guest that KVM could not go on with: the log tells of it, the monitor proves it."""
        words = failures.kvm_failure(log_tail(vmm_log, since))
        if not words or not processes.is_same(identity):
            return ""
        try:
            with qmp.session(launch.qmp_path(run_dir), Deadline.after(_COMMAND_TIMEOUT_S)) as session:
                status = session.execute("query-status")["status"]
        except qmp.QmpError:
            return ""  # it is on its way out, or will be asked again
        return words if status == "internal-error" else ""

    def of_this_boot(self, identity: ProcessIdentity) -> bool:
        """False if the host rebooted since."""
        return processes.of_this_boot(identity)

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """True if this very process lives."""
        return processes.is_same(identity)

    def power_down(self, identity: ProcessIdentity, run_dir: Path) -> None:
        """Press the ACPI power button; a machine that is gone already is success."""
        self._tell(identity, run_dir, "system_powerdown", "take the power button")

    def pause(self, identity: ProcessIdentity, run_dir: Path) -> None:
        """Stop the machine's CPUs; one that stands still already is success, and so is one that is gone."""
        self._tell(identity, run_dir, "stop", "stand still")

    def resume(self, identity: ProcessIdentity, run_dir: Path) -> None:
        """Let the machine go on; one that runs is success, and so is one that is gone."""
        self._tell(identity, run_dir, "cont", "go on")

    def _tell(self, identity: ProcessIdentity, run_dir: Path, command: str, meaning: str) -> None:
        if not processes.is_same(identity):
            return
        try:
            with qmp.session(launch.qmp_path(run_dir), Deadline.after(_COMMAND_TIMEOUT_S)) as session:
                session.execute(command)
        except qmp.QmpError as error:
            if not processes.is_same(identity):
                return
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f"the VMM process {identity.pid} does not {meaning}",
                subject=identity.marker,
                cause=str(error),
            ) from error

    def kill(self, identity: ProcessIdentity, timeout_s: float = 10.0) -> None:
        """End the process through its pidfd and wait until it is gone; already gone is success."""
        processes.kill(identity)
        if not processes.wait_gone(identity, timeout_s):
            raise BangerError(
                ErrorKind.TIMEOUT,
                f"the VMM process {identity.pid} did not end within {timeout_s:g} s of being killed",
                subject=identity.marker,
                hint=f"cat /proc/{identity.pid}/stack",
            )

    def wait_exit(self, identity: ProcessIdentity, timeout_s: float, token: CancelToken | None = None) -> bool:
        """Wait until the process is gone; False on timeout, and soon after ``token`` is cancelled."""
        return processes.wait_gone(identity, timeout_s, token)
