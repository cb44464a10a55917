"""The ``Vmm`` port on QEMU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from banger.config import Config
from banger.core.cancel import Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.ports import VmmConfig
from banger.layout import Layout
from banger.vmm import identity as processes
from banger.vmm import probe
from banger.vmm.qemu import launch, qmp
from banger.vmm.qemu.arguments import command_line
from banger.vmm.qemu.binary import find_binary

_COMMAND_TIMEOUT_S = 5.0


class QemuVmm:
    """Starts, finds and ends QEMU processes. Keeps nothing about a VM: all it knows is on the host."""

    name = "qemu"

    def __init__(self, config: Config, layout: Layout) -> None:
        self._config = config
        self._layout = layout

    def accelerator(self) -> str:
        """``kvm`` or ``tcg``; :func:`banger.vmm.probe.accelerator` also tells why."""
        return probe.accelerator(self._layout, self._config).name

    def launch(self, config: VmmConfig, on_spawn: Callable[[ProcessIdentity], None]) -> ProcessIdentity:
        """Start the process in its own session, and return once the machine runs."""
        binary = find_binary()
        tsc_khz = probe.tsc_khz(self._layout) if config.accelerator == "tcg" else 0
        return launch.launch(config, lambda qmp_fd: command_line(binary, config, qmp_fd, tsc_khz), on_spawn)

    def find(self, marker: str) -> ProcessIdentity | None:
        """The process whose command line carries ``marker``: for a handle that was intended but never recorded."""
        return processes.find(marker)

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

    def wait_exit(self, identity: ProcessIdentity, timeout_s: float) -> bool:
        """Wait until the process is gone; False on timeout."""
        return processes.wait_gone(identity, timeout_s)
