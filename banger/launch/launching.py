"""Choosing the launcher that starts VMMs; the others still list and stop what they have started."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from loguru import logger

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import Outcome
from banger.core.ports import HostObject
from banger.core.uid_span import parse_span
from banger.core.units import MIB
from banger.launch.cgroups import Cgroups, NoDelegationError, delegated_part
from banger.launch.environment import is_supervised
from banger.launch.jail import obstacle
from banger.launch.port import Job, Launcher, Limits
from banger.launch.session import SessionLauncher
from banger.launch.systemd import SystemdLauncher

#: Of one CPU, besides the guest's own: disk and network.
_OVERHEAD_CPU_PERCENT = 50
#: A VMM has a thread for each CPU of the guest and up to 64 for each disk.
_TASKS = 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """How VMMs are started here, for people.

    Attributes:
        name: ``systemd`` or ``session``.
        reason: why this one.
        limited: CPU, memory and threads of a VMM are limited.
        unlimited_because: why not, else.
        jailed: VMMs get users of their own and see nothing of the host but what they need.
        unjailed_because: why not, else.
        jail_obstacle: why that does not work here, so that none can be started.
    """

    name: str
    reason: str
    limited: bool
    unlimited_because: str = ""
    jailed: bool = False
    unjailed_because: str = ""
    jail_obstacle: str = ""


class Launching:
    """Starts VMMs as configured or as it is possible. Chooses once, at the first need."""

    def __init__(self, config: Config, installation: str, env: Mapping[str, str] | None = None) -> None:
        self._wish = config.text("vmm.launcher")
        self._wants_limits = config.text("vmm.limits") != "none"
        self._uids = config.text("vmm.jail_uids")
        self._unjailed_because = _unjailed_because(config)
        self._env = os.environ if env is None else env
        self._systemd = SystemdLauncher(installation)
        self._installation = installation

    def facts(self) -> Facts:
        """How VMMs are started here. Raises as :meth:`spawn` if they are not."""
        name, reason = self._choice
        limited = not isinstance(self._part, str) or (name == "systemd" and self._wants_limits)
        return Facts(
            name,
            reason,
            limited=limited,
            unlimited_because="" if limited else str(self._part),
            jailed=self.jails,
            unjailed_because=self._unjailed_because,
            jail_obstacle=self._jail_obstacle,
        )

    def describe(self) -> Mapping[str, object]:
        """The same as plain values."""
        return asdict(self.facts())

    @property
    def jails(self) -> bool:
        """True if every VMM gets a user of its own and is confined."""
        return not self._unjailed_because

    @property
    def inherits(self) -> bool:
        """True if a process can be given open files."""
        return self._chosen.inherits

    def holds(self, vm_id: str) -> list[tuple[str, str]]:
        """Kind and key in the ledger of what :meth:`spawn` will make for a VM besides the process."""
        key = self._chosen.key(vm_id)
        return [(self._chosen.kind, key)] if key else []

    def spawn(self, job: Job) -> int:
        """Start a process and return its id; 0 if it has ended already.

        Raises:
            BangerError: ``unavailable``, ``conflict``.
        """
        return self._chosen.spawn(job)

    def spawn_helper(self, job: Job) -> int:
        """Start a process that serves a VM for a moment, and return its id. It has no limits, and is in no unit.

        Raises:
            BangerError: ``unavailable``.
        """
        return SessionLauncher().spawn(job)

    def limits(self, cpus: int, memory_mib: int, overhead_mib: int) -> Limits:
        """What a VMM may use for a guest of this size; ``overhead_mib`` is what it needs besides the guest's memory."""
        if not self._wants_limits:
            return Limits()
        memory_bytes = (memory_mib + overhead_mib) * MIB
        return Limits(100 * cpus + _OVERHEAD_CPU_PERCENT, memory_bytes, _TASKS)

    def outcome(self, vm_id: str) -> Outcome:
        """How a VM's last process ended, until :meth:`release`.

        A launcher that cannot be asked knows nothing: most VMs are not its own, and all must come down.
        """
        told = []
        for one in self._all:
            try:
                told.append(one.outcome(vm_id))
            except BangerError as error:
                logger.debug("{} does not tell how the VMM of {} ended: {}", one.name, vm_id, error)
        status = next((one.status for one in told if one.status is not None), None)
        return Outcome(status, any(one.out_of_memory for one in told))

    def release(self, kind: str, key: str) -> None:
        """Take down what was made besides a process, whichever launcher made it; already gone is success."""
        for one in self._all:
            if one.kind == kind:
                one.release(key)

    def host_objects(self) -> Sequence[HostObject]:
        """Everything on the host that launchers made for this installation."""
        return [found for one in self._all for found in one.host_objects()]

    @property
    def _all(self) -> tuple[Launcher, ...]:
        return (self._session, self._systemd)

    @property
    def _chosen(self) -> Launcher:
        return self._systemd if self._choice[0] == "systemd" else self._session

    @cached_property
    def _choice(self) -> tuple[str, str]:
        if self._wish == "session":
            return "session", "vmm.launcher is set"
        if self._wish == "auto" and not is_supervised(self._env, os.getpid()):
            return "session", "the daemon is not a service of systemd"
        obstacle = self._systemd.obstacle()
        if not obstacle:
            return "systemd", "the daemon is one itself" if self._wish == "auto" else "vmm.launcher is set"
        if self._wish == "auto":
            return "session", f"systemd starts no services for us: {obstacle}"
        raise BangerError(
            ErrorKind.UNAVAILABLE, "VMs cannot be services of systemd here", cause=obstacle,
            hint="set vmm.launcher to auto",
        )  # fmt: skip

    @cached_property
    def _jail_obstacle(self) -> str:
        return obstacle(parse_span(self._uids).start) if self.jails else ""

    @cached_property
    def _session(self) -> SessionLauncher:
        part = self._part
        return SessionLauncher(None if isinstance(part, str) else Cgroups(part, self._installation))

    @cached_property
    def _part(self) -> Path | str:
        """Where we may make cgroups, or why nowhere."""
        if not self._wants_limits:
            return "vmm.limits is none"
        try:
            return delegated_part()
        except NoDelegationError as error:
            return str(error)


def _unjailed_because(config: Config) -> str:
    """Why VMMs that this user starts get no user of their own; empty if they do."""
    if os.geteuid() != 0:
        return "the daemon is not root's"
    return "vmm.jail is off" if config.text("vmm.jail") == "off" else ""
