"""Processes as transient systemd services: each a unit, accounted, limited and reaped by the manager.

A service and not a scope, because only a service has a main process whose exit status the manager keeps
(systemd.scope(5)). The unit stays after its process has ended, whichever way, until it is released.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence

from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import Outcome
from banger.core.names import ID_LENGTH
from banger.core.ports import HostObject
from banger.launch.environment import BOOTED, inheritable
from banger.launch.jail import jailed
from banger.launch.port import Job, Limits
from banger.posix.programs import run_program

SLICE = "banger.slice"
_TIMEOUT_S = 30.0
#: The kernel tells us of a process's end and the manager at the same time: it may need a moment longer.
_SETTLE_TIMEOUT_S = 3.0
_SETTLE_INTERVAL_S = 0.02
_CLD_EXITED = 1
#: Hardened as the daemon's own unit (banger.commands.systemd_unit), which does not reach what the manager starts.
_PROPERTIES = (
    "RemainAfterExit=yes",
    "StandardInput=null",
    "WorkingDirectory=/",
    "UMask=0077",
    "TimeoutStopSec=10",
    "LimitCORE=0",
    "LimitNOFILE=65536",
    "LockPersonality=yes",
    "NoNewPrivileges=yes",
    "RestrictRealtime=yes",
    # On the host's way down, the daemon is stopped first: it may save its VMs (daemon.on_shutdown).
    "Before=banger.service",
)


class SystemdLauncher:
    """Starts services with ``systemd-run``: of the system's manager as root, else of the user's own."""

    name = "systemd"
    kind = "unit"
    inherits = False

    def __init__(self, installation: str, *, is_system: bool | None = None) -> None:
        self._installation = installation
        self._scope = () if (os.geteuid() == 0 if is_system is None else is_system) else ("--user",)

    def key(self, vm_id: str) -> str:
        """The name of the VM's unit."""
        return f"{self._prefix}{vm_id}.service"

    def obstacle(self) -> str:
        """Why services cannot be started here, found by starting one; empty if they can."""
        if not BOOTED.is_dir():
            return "systemd does not run here"
        if shutil.which("systemd-run") is None:
            return "systemd-run is not installed"
        try:
            words = ("--quiet", "--collect", "--wait", f"--slice={SLICE}", "--", shutil.which("true") or "/bin/true")
            self._run("systemd-run", *words)
        except BangerError as error:
            return error.cause or error.message
        return ""

    def spawn(self, job: Job) -> int:
        """Start the service and wait until its program is executed."""
        unit = self.key(job.vm_id)
        left = self._show(unit)
        if _is_alive(left):
            raise BangerError(
                ErrorKind.CONFLICT, f'the unit "{unit}" runs already (pid {left["MainPID"]})', subject=unit,
                hint="banger system reconcile",
            )  # fmt: skip
        if left.get("LoadState") == "loaded":
            self.release(unit)
        for log in filter(None, (job.log, job.output)):
            log.touch(mode=0o600)
        self._run("systemd-run", *run_arguments(unit, job))
        return int(self._show(unit).get("MainPID") or 0)

    def outcome(self, vm_id: str) -> Outcome:
        """What the manager says of the main process."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        while _is_alive(facts := self._show(self.key(vm_id))) and time.monotonic() < deadline:
            time.sleep(_SETTLE_INTERVAL_S)
        return read_outcome(facts)

    def release(self, key: str) -> None:
        """Stop the unit, which kills what is in it, and have the manager forget it."""
        if self._show(key).get("LoadState") in (None, "not-found"):
            return
        self._run("systemctl", "stop", key, may_fail=True)
        self._run("systemctl", "reset-failed", key, may_fail=True)  # which fails if it has been forgotten already
        facts = self._show(key)
        if facts.get("LoadState") == "loaded" and facts.get("ActiveState") != "inactive":
            raise BangerError(
                ErrorKind.INTERNAL, f'the unit "{key}" does not go: it is {facts["ActiveState"]}', subject=key,
                hint=f"systemctl status {key}",
            )  # fmt: skip

    def host_objects(self) -> Sequence[HostObject]:
        """The units of this installation."""
        if not BOOTED.is_dir() or shutil.which("systemctl") is None:
            return ()
        pattern = f"{self._prefix}*.service"
        fields = "--property=Id,ExecMainStartTimestamp"
        text = self._run("systemctl", "show", "--timestamp=unix", fields, pattern, may_fail=True)
        found = []
        for facts in map(parse_properties, text.split("\n\n")):
            unit = facts.get("Id", "")
            vm_id = unit.removeprefix(self._prefix).removesuffix(".service")
            if unit.startswith(self._prefix) and len(vm_id) == ID_LENGTH:
                found.append(self._host_object(unit, vm_id, facts.get("ExecMainStartTimestamp", "")))
        return found

    def _host_object(self, unit: str, vm_id: str, started: str) -> HostObject:
        since = float(started[1:]) if started[1:].isdigit() else 0.0
        return HostObject("unit", unit, vm_id, "runs a VMM", lambda: self.release(unit), since=since)

    def _show(self, unit: str) -> dict[str, str]:
        if not BOOTED.is_dir():
            return {}
        fields = "--property=LoadState,ActiveState,SubState,Result,MainPID,ExecMainCode,ExecMainStatus"
        return parse_properties(self._run("systemctl", "show", fields, unit))

    def _run(self, program: str, *arguments: str, may_fail: bool = False) -> str:
        command = [program, *self._scope, *arguments]
        try:
            done = run_program(command, timeout_s=_TIMEOUT_S, environment=inheritable(os.environ))
        except BangerError as error:
            in_time = error.kind is not ErrorKind.TIMEOUT
            raise _failed(program, error.message if in_time else f"no answer within {_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise _failed(program, error.strerror or str(error)) from error
        if done.status and not may_fail:
            raise _failed(program, done.words or f"status {done.status}")
        return done.text

    @property
    def _prefix(self) -> str:
        return f"banger-{self._installation}-"


def run_arguments(unit: str, job: Job) -> list[str]:
    """What ``systemd-run`` is told. Pure.

    The manager replaces ``$NAME`` in arguments, but not in the program's path, and turns ``$$`` into one sign.
    """
    forks = job.confinement is not None and not job.confinement.has_processes
    properties = [
        f"Type={'forking' if forks else 'exec'}",
        *_PROPERTIES,
        f"StandardOutput=append:{job.output or job.log}",
    ]
    properties += [f"StandardError=append:{job.log}"]
    properties += limit_properties(job.limits)
    own = jailed(job.confinement, job.argv, forks=forks) if job.confinement else job.argv
    program, *arguments = [*job.entering, *own]
    return [
        "--quiet",
        f"--unit={unit}",
        f"--slice={SLICE}",
        f"--description=banger VM {job.vm_id}",
        *(f"--property={one}" for one in properties),
        "--",
        program,
        *(one.replace("$", "$$") for one in arguments),
    ]


def limit_properties(limits: Limits) -> list[str]:
    """Limits as systemd.resource-control(5) has them. Pure."""
    return [
        *([f"CPUQuota={limits.cpu_percent}%"] if limits.cpu_percent else []),
        *([f"MemoryMax={limits.memory_bytes}"] if limits.memory_bytes else []),
        *([f"TasksMax={limits.tasks}"] if limits.tasks else []),
    ]


def parse_properties(text: str) -> dict[str, str]:
    """``systemctl show``'s lines. Pure."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def read_outcome(facts: Mapping[str, str]) -> Outcome:
    """How the main process ended; all is unknown of one that runs, or that no unit tells of. Pure."""
    code, status = (int(facts.get(name) or 0) for name in ("ExecMainCode", "ExecMainStatus"))
    out_of_memory = facts.get("Result") == "oom-kill"
    if not code:
        return Outcome(None, out_of_memory)
    return Outcome(status if code == _CLD_EXITED else -status, out_of_memory)


def _is_alive(facts: Mapping[str, str]) -> bool:
    return facts.get("MainPID", "0") != "0"


def _failed(program: str, cause: str) -> BangerError:
    return BangerError(
        ErrorKind.UNAVAILABLE, f'"{program}" failed', subject=program, cause=cause,
        hint="set vmm.launcher to session",
    )  # fmt: skip
