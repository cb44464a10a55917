"""The Firecracker driver: machines are started from a file and controlled through the API of their process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from banger.config import Config
from banger.core.cancel import CancelToken, Deadline
from banger.core.console import has_halted
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import ExitRecord, Outcome
from banger.core.models import ProcessIdentity
from banger.core.ports import (
    AgentCarrier,
    Condition,
    DeviceKind,
    Drive,
    Engines,
    Health,
    KernelFormat,
    Machine,
    SavedMachine,
    TapNic,
    VmmConfig,
)
from banger.core.vmm_names import EMULATED
from banger.core.wire.vm_spec import VmSpec
from banger.launch import Launching
from banger.layout import Layout
from banger.vmm import identity as processes
from banger.vmm.cpu_time import thread_times_ns
from banger.vmm.firecracker import exits, launch
from banger.vmm.firecracker.binary import INSTALL, Binary, find_binary
from banger.vmm.firecracker.client import Api, ApiError
from banger.vmm.firecracker.configuration import CPU_TEMPLATE, CPU_TEMPLATES, MOST_CPUS
from banger.vmm.firecracker.engines import FirecrackerEngines
from banger.vmm.firecracker.metrics import metrics_file, read_error_counters
from banger.vmm.firecracker.releases import parse_version
from banger.vmm.firecracker.saving import Saving, obstacle_of
from banger.vmm.firecracker.saving_place import forget, is_unfinished
from banger.vmm.log_files import log_tail, make_room
from banger.vmm.saved import check_fits, check_loadable
from banger.vmm.verdicts import cpu_model

_COMMAND_TIMEOUT_S = 5.0
#: What is being written when nobody waits for it any more is written to its end.
_UNFINISHED_SAVE_TIMEOUT_S = 120.0
#: A machine is looked at all the time, and one that is too busy to answer now is looked at again.
_LOOK_TIMEOUT_S = 1.0
_STOP_TIMEOUT_S = 5.0
#: How long the threads of a guest's CPUs must do nothing, in seconds: a kernel that is idle wakes more often.
_REST_S, _REST_POLL_S = 2.0, 0.1
#: In these, a machine that goes on after a pause is deaf on its vsock (Firecracker: pull request 6100).
_DEAF_AFTER_PAUSE = ((1, 16, 0), (1, 16, 1))
_PAUSED = Condition(Health.PAUSED, "it is paused")


class FirecrackerDriver:
    """Implements :class:`banger.core.ports.VmmDriver`. Keeps nothing about a VM: all it knows is on the host."""

    name = "firecracker"
    devices: Collection[DeviceKind] = (Drive, TapNic)
    holds_writes = False
    names_drives = False
    has_power_switch = False
    kernel_format = KernelFormat.ELF
    agent_carrier = AgentCarrier.VSOCK

    def __init__(self, config: Config, layout: Layout, launching: Launching, proof: Engines) -> None:
        """``proof`` knows what KVM is worth here."""
        self._config = config
        self._layout = layout
        self._launching = launching
        self._engines = FirecrackerEngines(config, proof)

    @property
    def engines(self) -> FirecrackerEngines:
        """KVM."""
        return self._engines

    def options(self, spec: VmSpec) -> Mapping[str, str]:
        """The CPU template. Raises ``usage`` for what it does not have."""
        if spec.machine:
            raise _lacks(f'no machine "{spec.machine}"', spec.machine)
        if EMULATED in (spec.accelerator, self._config.text("vmm.accelerator")):
            raise _lacks("no emulation", EMULATED)
        if spec.cpus > MOST_CPUS:
            raise _lacks(f"at most {MOST_CPUS} CPUs for a VM", str(spec.cpus))
        template = self._config.text("firecracker.cpu_template")
        if template and template not in CPU_TEMPLATES and not _is_file(template):
            raise BangerError(
                ErrorKind.USAGE, f'"{template}" is not a valid value for firecracker.cpu_template', subject=template,
                hint=f"use {', '.join(CPU_TEMPLATES)}, or the absolute path of a file that is there",
            )  # fmt: skip
        return {CPU_TEMPLATE: template}

    def version(self) -> str:
        """What the chosen Firecracker tells: ``1.12.1``."""
        return self._binary().text

    def obstacle(self, kernel_digest: str) -> str:
        """Why it cannot run machines here: it is not installed, cannot be jailed, or KVM is not proven."""
        try:
            self._binary()
        except BangerError as error:
            return ": ".join(filter(None, (error.message, error.cause)))
        return self._engines.obstacle(kernel_digest)

    def alternative(self, spec: VmSpec) -> str:  # noqa: ARG002  # it has one kind of machine
        """QEMU has others."""
        return "--vmm qemu"

    def launch(
        self, config: VmmConfig, on_spawn: Callable[[ProcessIdentity], None], token: CancelToken | None = None
    ) -> ProcessIdentity:
        """Start the process so that it outlives the daemon, and return once the machine runs."""
        make_room(config.console_log)
        binary = self._binary(config.version)
        check_loadable(config, vmm=self.name, version=binary.text, cpu=cpu_model())
        return launch.launch(binary, config, on_spawn, self._launching, token)

    def save_obstacle(self, machine: Machine) -> str:
        """That it was started in another way, or its version lacks something."""
        return obstacle_of(machine)

    def save(
        self,
        machine: Machine,
        into: Path,
        standing: Callable[[], None],
        on_spawn: Callable[[ProcessIdentity], None],  # noqa: ARG002
        token: CancelToken | None = None,
    ) -> SavedMachine:
        """Have Firecracker write it to files, see ``saving``; no other process has a part in it."""
        return Saving(machine, token or CancelToken()).save(into, standing)

    def check_saved(self, saved: SavedMachine, name: str) -> None:
        """That the same release on the same CPU has saved it."""
        version = self._binary().text
        check_fits(saved, name, vmm=self.name, version=version, cpu=cpu_model(), accelerator=saved.accelerator)

    def condition(self, machine: Machine, token: CancelToken | None = None) -> Condition:
        """What its API says, and the last word of its guest, which it does not notice itself."""
        if not processes.is_same(machine.identity):
            return Condition()
        if processes.is_stopped(machine.identity):
            return _PAUSED
        try:
            state = self._api(machine, _LOOK_TIMEOUT_S, token).get("/").get("state")
        except ApiError:
            return Condition()
        if state == "Paused":
            return _PAUSED
        if has_halted(log_tail(machine.console_log, machine.console_offset)) and _is_at_rest(
            machine.identity.pid, token
        ):
            return Condition(Health.HALTED, "the guest powered off")
        return Condition()

    def hears_agent(self, run_dir: Path) -> bool:  # noqa: ARG002
        """Always: vsock ends the connection of who has ended."""
        return True

    def exit_record(self, machine: Machine, outcome: Outcome, console: str) -> ExitRecord:
        """Why the machine ended; Firecracker's own words are in its log."""
        return exits.explain(outcome, console, log_tail(machine.vmm_log))

    def error_counters(self, vmm_log: Path) -> Mapping[str, int]:
        """From its metrics, which it writes once a minute and at the end."""
        return read_error_counters(metrics_file(vmm_log))

    def power_down(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Press Ctrl-Alt-Del, upon which an init reboots; a machine that is gone already is success."""
        self._tell(machine, "take the keys", lambda api: api.put("/actions", {"action_type": "SendCtrlAltDel"}), token)

    def pause(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Stop the machine's CPUs. Where Firecracker's own pause does harm, its whole process is stopped."""

        def stand_still(api: Api) -> None:
            if parse_version(_text(api.get("/version"), "firecracker_version")) in _DEAF_AFTER_PAUSE:
                processes.stop(machine.identity, _STOP_TIMEOUT_S, token)
            else:
                api.patch("/vm", {"state": "Paused"})

        if not processes.is_stopped(machine.identity):
            self._tell(machine, "stand still", stand_still, token)

    def resume(self, machine: Machine, token: CancelToken | None = None) -> None:
        """Let the machine go on, if it stands still: to one that runs, Firecracker must not say it."""

        def go_on(api: Api) -> None:
            if api.get("/").get("state") == "Paused":
                api.patch("/vm", {"state": "Resumed"})

        processes.kill(machine.identity, signal.SIGCONT)
        timeout_s = _UNFINISHED_SAVE_TIMEOUT_S if is_unfinished(machine.vmm_log) else _COMMAND_TIMEOUT_S
        self._tell(machine, "go on", go_on, token, timeout_s)
        forget(machine.vmm_log)

    def _binary(self, version: str = "") -> Binary:
        """The one to use; where VMMs are jailed, it must be one that can be."""
        binary = find_binary(self._layout, self._config, version)
        if self._launching.jails and binary.why_not_jailed:
            raise BangerError(
                ErrorKind.UNAVAILABLE, f"Firecracker {binary.text} cannot be put into a jail", subject=binary.text,
                cause=binary.why_not_jailed, hint=f"{INSTALL}; to do without: set vmm.jail to off",
            )  # fmt: skip
        return binary

    def _api(self, machine: Machine, timeout_s: float, token: CancelToken | None) -> Api:
        return Api(launch.api_path(machine.run_dir), timeout_s, token)

    def _tell(
        self,
        machine: Machine,
        meaning: str,
        act: Callable[[Api], None],
        token: CancelToken | None,
        timeout_s: float = _COMMAND_TIMEOUT_S,
    ) -> None:
        identity = machine.identity
        if not processes.is_same(identity):
            return
        try:
            act(self._api(machine, timeout_s, token))
        except ApiError as error:
            if not processes.is_same(identity):
                return
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f"the VMM process {identity.pid} does not {meaning}",
                subject=identity.marker,
                cause=str(error),
            ) from error


def _is_at_rest(pid: int, token: CancelToken | None) -> bool:
    """True if no CPU of the guest runs at all for a while, as after the last word of its kernel.

    Anybody in the guest may write that word on the console, but then goes on.
    """
    deadline, token = Deadline.after(_REST_S), token or CancelToken()
    before = thread_times_ns(pid, launch.VCPU_THREADS)
    while before and thread_times_ns(pid, launch.VCPU_THREADS) == before:
        if deadline.expired:
            return True
        token.wait(_REST_POLL_S)
        token.raise_if_cancelled()
    return False


def _is_file(path: str) -> bool:
    return Path(path).is_absolute() and Path(path).is_file()


def _text(answer: Mapping[str, Any], name: str) -> str:
    return str(answer.get(name, ""))


def _lacks(what: str, subject: str) -> BangerError:
    return BangerError(ErrorKind.USAGE, f"Firecracker has {what}", subject=subject, hint="--vmm qemu")
