"""Drivers and machine configurations that contract and integration tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from banger.config import Config
from banger.core.models import ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import Machine, UserNic, VmmConfig, VmmDriver, VmmLauncher, VmmProcesses
from banger.launch import Launching
from banger.launch.systemd import SystemdLauncher
from banger.layout import Layout
from banger.vmm.firecracker.driver import FirecrackerDriver
from banger.vmm.processes import LocalProcesses
from banger.vmm.qemu.driver import QemuDriver
from tests.support.fake_vmm import FakeEngines, FakeFirecracker, FakeVmm
from tests.support.leaks import SESSION_VARIABLE
from tests.support.tiny_guest import write_button_guest, write_counting_guest, write_sleeping_guest
from tests.support.waiting import eventually

INSTALLATION = "0123456789ab"
#: Machines that cost nothing, and real ones.
FAKES = ("fake", "fake-firecracker")
KINDS = (*FAKES, "qemu-microvm", "qemu-q35", "qemu-jailed", "qemu-systemd", "firecracker", "firecracker-jailed")
#: Emulated, what is tested would take too long, or cannot be.
ON_KVM = ("qemu-systemd", "firecracker", "firecracker-jailed")
JAILED = ("qemu-jailed", "firecracker-jailed")
#: Far from what an installation of this host hands out, see ``vmm.jail_uids``.
USERS = range(2_000_100_000, 2_000_165_536)


@dataclass(frozen=True, slots=True)
class Rig:
    """A driver and a directory to run machines in. ``kind`` is one of :data:`KINDS`; ``cache`` outlives the rig."""

    kind: str
    home: Path
    cache: Path
    vmm: VmmDriver
    processes: VmmProcesses
    launcher: VmmLauncher

    @classmethod
    def build(cls, kind: str, home: Path, cache: Path) -> Rig:
        if kind in FAKES:
            fake = (FakeVmm if kind == "fake" else FakeFirecracker)(console="up\n")
            return cls(kind, home, cache, fake, fake, fake)
        layout = replace(Layout.from_environment({"BANGER_HOME": str(home)}), cache=cache)
        launching = make_launching("systemd" if kind == "qemu-systemd" else "session")
        config = Config.load(layout.config_file, {})
        driver: VmmDriver = QemuDriver(config, layout, launching)
        if kind.startswith("firecracker"):
            # That KVM is worth something is taken for granted: how much an emulated one does is up to the host's load.
            driver = FirecrackerDriver(config, layout, launching, FakeEngines("kvm"))
        return cls(kind, home, cache, driver, LocalProcesses(launching.outcome, USERS), launching)

    def close(self) -> None:
        """End every machine and remove the directory."""
        for run_dir in (path for path in self.home.iterdir() if path.is_dir()):
            found = self.processes.find(vmm_marker(vm_id_of(run_dir.name)))
            if found is not None:
                self.processes.kill(found)
            for kind, key in self.launcher.holds(vm_id_of(run_dir.name)):
                self.launcher.release(kind, key)
        shutil.rmtree(self.home)

    def config(
        self, name: str = "web", *, hears_button: bool = False, counts: bool = False, **changes: object
    ) -> VmmConfig:
        """A machine of 32 MiB whose guest says "up" and waits, or goes on saying letters.

        Emulated, unless it takes so long to be what is tested.
        """
        run_dir = self.home / name
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_firecracker = self.kind.startswith("firecracker")
        machine = "firecracker" if is_firecracker else "q35" if self.kind == "qemu-q35" else "microvm"
        kernel = run_dir / "kernel"
        if hears_button:
            write_button_guest(kernel, machine)
        elif counts:
            write_counting_guest(kernel)
        else:
            write_sleeping_guest(kernel)
        (run_dir / "initrd").write_bytes(b"none")
        config = VmmConfig(
            vm_id=vm_id_of(name),
            name=name,
            run_dir=run_dir,
            kernel=kernel,
            initrd=run_dir / "initrd",
            cmdline="",
            cpus=1,
            memory_mib=32,
            devices=() if is_firecracker else (UserNic(),),
            options={"machine": machine},
            accelerator=self.vmm.engines.choose("", "").accelerator if self.kind in ON_KVM else "tcg",
            console_log=run_dir / "console.log",
            vmm_log=run_dir / "vmm.log",
            uid=USERS[int(vm_id_of(name)[:4], 16)] if self.kind in JAILED else 0,
        )
        return replace(config, **changes)  # type: ignore[arg-type]


def machine_of(config: VmmConfig, identity: ProcessIdentity, log_offset: int = 0) -> Machine:
    """What was launched, as its driver finds it again."""
    return Machine(config.vm_id, identity, config.run_dir, config.console_log, config.vmm_log, log_offset)


def make_launching(launcher: str) -> Launching:
    """Processes started in one way, without limits."""
    settings = {"BANGER_VMM_LAUNCHER": launcher, "BANGER_VMM_LIMITS": "none"}
    return Launching(Config.load(Path("/nonexistent"), settings), INSTALLATION, {})


def obstacle_to(kind: str) -> str:
    """Why machines of this kind cannot be run here; empty if they can."""
    if kind in FAKES:
        return ""
    if kind in JAILED and os.geteuid() != 0:
        return "only root's daemon gives VMMs users of their own"
    if kind.startswith("firecracker"):
        return _obstacle_to_firecracker()
    if not has_qemu():
        return "qemu-system-x86_64 is not installed"
    return SystemdLauncher(INSTALLATION).obstacle() if kind == "qemu-systemd" else ""


def _obstacle_to_firecracker() -> str:
    with tempfile.TemporaryDirectory() as home:
        return Rig.build("firecracker", Path(home), Path(home)).vmm.obstacle("")


def vm_id_of(name: str) -> str:
    """Twelve hex digits: of this session and worker, as processes are found by them, whoever has started them."""
    whose = (os.environ.get(one, "") for one in (SESSION_VARIABLE, "PYTEST_XDIST_WORKER"))
    return sha256("/".join((*whose, name)).encode()).hexdigest()[:12]


def wait_up(config: VmmConfig) -> None:
    """Until the guest has spoken."""
    log = config.console_log
    eventually(lambda: log.exists() and "up" in log.read_text(errors="replace"), what=f"{config.name} is up")


def has_qemu() -> bool:
    """True if the QEMU driver can be tried here."""
    return shutil.which("qemu-system-x86_64") is not None
