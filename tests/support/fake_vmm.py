"""A VMM driver whose machines are real processes of a few kilobytes: a shell that waits for its power button.

Their identity, their death by signal and their survival of the daemon are the real thing; only the machine is not.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from pathlib import Path

from banger.core.boot_pace import BootPace
from banger.core.cancel import CancelToken
from banger.core.console import has_halted
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import ExitRecord, Outcome
from banger.core.models import ProcessIdentity
from banger.core.names import saver_marker, vmm_marker
from banger.core.ports import (
    MEMORY_FILE,
    AgentCarrier,
    Condition,
    DeviceKind,
    Drive,
    Engine,
    EngineError,
    Health,
    HostObject,
    KernelFormat,
    Machine,
    SavedMachine,
    TapNic,
    UserNic,
    VmmConfig,
)
from banger.core.wire.vm_spec import VmSpec
from banger.vmm import identity as processes
from banger.vmm.exits import explain_exit
from banger.vmm.log_files import log_tail
from banger.vmm.saved import check_fits, check_loadable
from tests.support.waiting import eventually

FAKE_CPU = "a fake"
#: What a machine runs on, in its directory, for whoever saves it after a restart.
_RAN_ON = "ran-on"
#: What the process that helps with a save waits on, in the directory of the save.
_HOLD = "hold"
BOOT_MARKS = "banger: init 0.10\nbanger: root 0.20\nbanger: ready 0.30\n"

#: What a machine that was never loaded has in its memory, until a test writes something else there.
FRESH_MEMORY = "fresh"

# $0 is the marker, $1 the run directory, $2 the console, $3 what the guest prints while it boots, $4 how it begins.
# The button is opened for reading and writing, so that opening it does not wait for somebody to press it.
_MACHINE = """
[ "$4" != dies ] || exit 1
exec 3<> "$1/button"
: > "$1/running"
printf %s "$3" >> "$2"
read -r status <&3
case $status in
0) echo 'reboot: Power down' >> "$2" ;;
reboot) echo 'reboot: Restarting system' >> "$2"; exit 0 ;;
halt) echo 'reboot: System halted' >> "$2"; read -r status <&3; exit 0 ;;
panic) echo 'Kernel panic - not syncing: a test' >> "$2"; exit 0 ;;
esac
exit "$status"
"""


class Fault(Enum):
    """What goes wrong in a launch."""

    REFUSED = auto()  # nothing is started
    DIES = auto()  # the process exits before its machine runs
    ENGINE = auto()  # what it should run on does not take it
    HANGS = auto()  # launch waits until the process is killed from outside


@dataclass
class FakeEngines:
    """Implements the port ``Engines``: every kernel runs on ``found``, at ``pace`` until it was kept.

    Attributes:
        kept: reasons by digest, as they were kept; ``forgotten`` the digests that were to be forgotten.
    """

    found: str = "tcg"
    pace: BootPace | None = None
    kept: dict[str, str] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)

    def choose(self, wish: str, kernel_digest: str) -> Engine:
        if wish:
            pace = self.pace if wish == "kvm" else None
            return Engine(wish, "asked for", forced=True, pace=pace, is_emulated=wish == "tcg")
        if self.found == "kvm" and kernel_digest in self.kept:
            reason = self.kept[kernel_digest]
            return Engine("tcg", reason, is_emulated=True) if reason else Engine("kvm", "it came up before")
        pace = self.pace if self.found == "kvm" else None
        return Engine(self.found, "a fake", pace=pace, is_emulated=self.found == "tcg")

    def instead_of(self, engine: Engine, reason: str) -> Engine | None:
        return None if engine.forced or engine.is_emulated else Engine("tcg", reason, is_emulated=True)

    def keep(self, kernel_digest: str, reason: str = "") -> None:
        self.kept[kernel_digest] = reason

    def forget(self, kernel_digest: str) -> None:
        self.forgotten.append(kernel_digest)
        self.kept.pop(kernel_digest, None)


@dataclass
class FakeVmm:
    """Implements the ports ``VmmDriver``, ``VmmProcesses`` and ``VmmLauncher``.

    Attributes:
        faults: by VM name; each strikes once.
        deaf: names of VMs that ignore the power button.
        console: what a booting guest prints, ``consoles`` what it prints on one accelerator.
        broken: what the VMM of a machine that KVM cannot go on with prints, by VM name; it begins with ``KVM``.
        stalled: the conditions of machines that wait for the host to take a write, by VM id, until they are resumed
            and :attr:`has_room`.
        devices: the kinds that its machines can have.
        in_the_way: why it cannot run anything here.
        cpu_s: what every VMM has used.
        counted: what went wrong in its machines.
        launched: every configuration that was to be launched.
        up: every machine whose launch has succeeded.
        cannot_save: why no machine can be saved.
        has_saver: a process of its own helps to save a machine.
        while_saving: called in the middle of a save, while the machine runs.
        units: a directory where each launch makes one thing besides the process: a file named as the VM's id.
        release_error: what taking that down fails with.
    """

    name: str = "fake"
    devices: Collection[DeviceKind] = (Drive, UserNic, TapNic)
    holds_writes: bool = True
    in_the_way: str = ""
    names_drives: bool = True
    has_power_switch: bool = True
    kernel_format: KernelFormat = KernelFormat.AS_IT_IS
    agent_carrier: AgentCarrier = AgentCarrier.SERIAL
    stalled: dict[str, Condition] = field(default_factory=dict)
    has_room: bool = True
    engines: FakeEngines = field(default_factory=FakeEngines)
    broken: dict[str, str] = field(default_factory=dict)
    consoles: dict[str, str] = field(default_factory=dict)
    cpu_s: Callable[[], float] = lambda: 0.0
    counted: Mapping[str, int] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    console: str = BOOT_MARKS
    launched: list[VmmConfig] = field(default_factory=list)
    up: list[ProcessIdentity] = field(default_factory=list)
    cannot_save: str = ""
    has_saver: bool = True
    while_saving: Callable[[], None] = lambda: None
    units: Path | None = None
    release_error: Exception | None = None
    hanging: threading.Event = field(default_factory=threading.Event)

    def options(self, spec: VmSpec) -> Mapping[str, str]:
        if spec.machine not in ("", "microvm", "q35"):
            raise BangerError(ErrorKind.USAGE, f'a fake has no machine "{spec.machine}"')
        return {"machine": spec.machine or "microvm"}

    def version(self) -> str:
        return "1.2.3"

    def obstacle(self, kernel_digest: str) -> str:
        return self.in_the_way

    def alternative(self, spec: VmSpec) -> str:
        return "--machine q35"

    def describe(self) -> Mapping[str, object]:
        return {"name": "session", "reason": "a fake", "limited": False, "unlimited_because": "a fake"}

    def holds(self, vm_id: str) -> Sequence[tuple[str, str]]:
        return [("unit", vm_id)] if self.units else []

    def release(self, kind: str, key: str) -> None:
        if self.release_error:
            raise self.release_error
        if kind == "unit" and self.units:
            (self.units / key).unlink(missing_ok=True)

    def host_objects(self) -> Sequence[HostObject]:
        found = sorted(self.units.iterdir()) if self.units and self.units.exists() else []
        return [HostObject("unit", one.name, one.name, "a fake", partial(one.unlink, missing_ok=True)) for one in found]

    def outcome(self, vm_id: str, identity: ProcessIdentity) -> Outcome:
        return Outcome(processes.exit_status(identity))

    def exit_record(self, machine: Machine, outcome: Outcome, console: str) -> ExitRecord:
        return explain_exit(outcome, console, log_tail(machine.vmm_log))

    def error_counters(self, vmm_log: Path) -> Mapping[str, int]:
        return self.counted

    def launch(
        self, config: VmmConfig, on_spawn: Callable[[ProcessIdentity], None], token: CancelToken | None = None
    ) -> ProcessIdentity:
        self.launched.append(config)
        fault = self.faults.pop(config.name, None)
        if fault is Fault.REFUSED:
            raise BangerError(ErrorKind.CONFLICT, f'cannot start VM "{config.name}": refused', subject=config.name)
        if fault is Fault.ENGINE:
            raise EngineError(ErrorKind.UNAVAILABLE, f'cannot start VM "{config.name}"', cause="KVM is busy")
        saved = check_loadable(config, vmm=self.name, version=self.version(), cpu=FAKE_CPU)
        (config.run_dir / MEMORY_FILE).write_text(saved.memory.read_text() if saved else FRESH_MEMORY)
        (config.run_dir / _RAN_ON).write_text(f"{config.accelerator} {config.memory_mib}")
        spawned = self._spawn(config, "dies" if fault is Fault.DIES else "runs")
        try:
            on_spawn(spawned)
            if fault is Fault.HANGS:
                self.hanging.set()
                processes.wait_gone(spawned, 60.0, token)
                if token is not None:
                    token.raise_if_cancelled()
            eventually(lambda: not processes.is_same(spawned) or (config.run_dir / "running").exists())
            if not processes.is_same(spawned):
                raise BangerError(ErrorKind.UNAVAILABLE, f'cannot start VM "{config.name}": died', subject=config.name)
            if saved:
                self.pause(_machine_of(config, spawned))
        except BaseException:
            self.kill(spawned)
            raise
        self.up.append(spawned)
        return spawned

    def save_obstacle(self, machine: Machine) -> str:
        return self.cannot_save

    def save(
        self,
        machine: Machine,
        into: Path,
        standing: Callable[[], None],
        on_spawn: Callable[[ProcessIdentity], None],
        token: CancelToken | None = None,
    ) -> SavedMachine:
        if self.cannot_save:
            raise BangerError(ErrorKind.UNAVAILABLE, "the machine cannot be saved", cause=self.cannot_save)
        condition, token = self.condition(machine), token or CancelToken()
        if condition.health not in (Health.RUNS, Health.PAUSED) or not processes.is_same(machine.identity):
            raise BangerError(ErrorKind.CONFLICT, "the machine cannot be saved: it does not run")
        accelerator, memory_mib = (machine.run_dir / _RAN_ON).read_text().split()
        saver = _spawn_saver(machine.vm_id, into) if self.has_saver else None
        saved = SavedMachine(into, self.name, self.version(), FAKE_CPU, accelerator, int(memory_mib))
        try:
            if saver:
                on_spawn(saver)
            self.while_saving()
            token.raise_if_cancelled()
            if saver and not processes.is_same(saver):
                raise BangerError(ErrorKind.UNAVAILABLE, "the machine cannot be saved", cause="its helper was killed")
            self.pause(machine)
            saved.memory.write_text((machine.run_dir / MEMORY_FILE).read_text())
            saved.devices.write_text("devices")
            standing()
        except BaseException:
            for path in (saved.memory, saved.devices):
                path.unlink(missing_ok=True)
            raise
        finally:
            if saver:
                self.kill(saver)
                (into / _HOLD).unlink()
            if condition.health is Health.RUNS:
                self.resume(machine)
        for path in (saved.memory, saved.devices):
            path.chmod(0o400)
        return saved

    def check_saved(self, saved: SavedMachine, name: str) -> None:
        check_fits(saved, name, vmm=self.name, version=self.version(), cpu=FAKE_CPU, accelerator=saved.accelerator)

    def find(self, marker: str) -> ProcessIdentity | None:
        return processes.find(marker)

    def cpu_seconds(self, identity: ProcessIdentity) -> float:
        return self.cpu_s() if processes.is_same(identity) else 0.0

    def condition(self, machine: Machine, token: CancelToken | None = None) -> Condition:
        if not processes.is_same(machine.identity):
            return Condition()
        words = log_tail(machine.vmm_log, machine.log_offset).strip()
        if words.startswith("KVM"):
            return Condition(Health.BROKEN, words)
        if machine.vm_id in self.stalled:
            return self.stalled[machine.vm_id]
        return Condition(Health.PAUSED, "it is paused") if _stands_still(machine.identity.pid) else Condition()

    def hears_agent(self, run_dir: Path) -> bool:
        return True

    def of_this_boot(self, identity: ProcessIdentity) -> bool:
        return processes.of_this_boot(identity)

    def is_alive(self, identity: ProcessIdentity) -> bool:
        return processes.is_same(identity)

    def power_down(self, machine: Machine, token: CancelToken | None = None) -> None:
        self.press_button(machine.run_dir)

    def press_button(self, run_dir: Path) -> None:
        """What the guest's own poweroff does, too."""
        if not any(config.name in self.deaf and config.run_dir == run_dir for config in self.launched):
            self.exit(run_dir, 0)

    def pause(self, machine: Machine, token: CancelToken | None = None) -> None:
        processes.kill(machine.identity, signal.SIGSTOP)
        eventually(lambda: not processes.is_same(machine.identity) or _stands_still(machine.identity.pid))

    def resume(self, machine: Machine, token: CancelToken | None = None) -> None:
        if machine.vm_id in self.stalled and not self.has_room:
            return
        self.stalled.pop(machine.vm_id, None)
        processes.kill(machine.identity, signal.SIGCONT)
        eventually(lambda: not processes.is_same(machine.identity) or not _stands_still(machine.identity.pid))

    def kill(self, identity: ProcessIdentity, timeout_s: float = 10.0) -> None:
        processes.kill(identity)
        assert processes.wait_gone(identity, timeout_s)

    def wait_exit(self, identity: ProcessIdentity, timeout_s: float, token: CancelToken | None = None) -> bool:
        return processes.wait_gone(identity, timeout_s, token)

    def exit(self, run_dir: Path, status: int | str) -> None:
        """Make the machine end by itself, with a status, or as by ``reboot`` or ``panic``; one that is gone stays so."""
        try:
            button = os.open(run_dir / "button", os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENXIO):
                return
            raise
        with os.fdopen(button, "w") as file:
            file.write(f"{status}\n")

    def _spawn(self, config: VmmConfig, how: str) -> ProcessIdentity:
        for stale in ("button", "running"):
            (config.run_dir / stale).unlink(missing_ok=True)
        os.mkfifo(config.run_dir / "button")
        marker = vmm_marker(config.vm_id)
        if self.units:
            self.units.mkdir(exist_ok=True)
            (self.units / config.vm_id).touch()
        said = "" if config.saved else self.consoles.get(config.accelerator, self.console)
        with config.vmm_log.open("ab", buffering=0) as log:
            log.write(self.broken.get(config.name, "").encode() if config.accelerator == "kvm" else b"")
            process = subprocess.Popen(
                ["/bin/sh", "-c", _MACHINE, marker, str(config.run_dir), str(config.console_log), said, how],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process.returncode = 0  # reaped by its identity, as the real driver does
        return processes.identify(process.pid, marker)


def _spawn_saver(vm_id: str, into: Path) -> ProcessIdentity:
    """A process that does nothing until it is killed."""
    os.mkfifo(into / _HOLD)
    marker = saver_marker(vm_id)
    argv = ["/bin/sh", "-c", 'read -r _ <> "$1"', marker, str(into / _HOLD)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    process.returncode = 0
    return processes.identify(process.pid, marker)


def _machine_of(config: VmmConfig, identity: ProcessIdentity) -> Machine:
    return Machine(config.vm_id, identity, config.run_dir, config.console_log, config.vmm_log)


@dataclass
class FakeFirecracker(FakeVmm):
    """Behaves as Firecracker does: its machines have no power switch, end by a reboot, and have no other engine.

    Unlike Firecracker it gives machines every kind of card, so that owners' tests need no other network.
    """

    name: str = "firecracker"
    holds_writes: bool = False
    names_drives: bool = False
    has_power_switch: bool = False
    kernel_format: KernelFormat = KernelFormat.ELF
    agent_carrier: AgentCarrier = AgentCarrier.VSOCK
    has_saver: bool = False

    def options(self, spec: VmSpec) -> Mapping[str, str]:
        if spec.machine or spec.accelerator == "tcg":
            raise BangerError(ErrorKind.USAGE, f'a fake has no machine "{spec.machine}"')
        return {}

    def alternative(self, spec: VmSpec) -> str:
        return "--vmm qemu"

    def condition(self, machine: Machine, token: CancelToken | None = None) -> Condition:
        found = super().condition(machine, token)
        if found.health is Health.RUNS and processes.is_same(machine.identity):
            return Condition(Health.HALTED, "the guest powered off") if _has_halted(machine) else found
        return found

    def press_button(self, run_dir: Path) -> None:
        """Three keys, upon which the guest reboots."""
        if not any(config.name in self.deaf and config.run_dir == run_dir for config in self.launched):
            self.exit(run_dir, "reboot")


def _has_halted(machine: Machine) -> bool:
    return has_halted(log_tail(machine.console_log, machine.console_offset))


def _stands_still(pid: int) -> bool:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return text[text.rindex(")") + 1 :].split()[0] == "T"
