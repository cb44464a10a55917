"""The interface of launchers, as needed by VMM drivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.core.exits import Outcome
from banger.core.ports import HostObject
from banger.launch.jail import Confinement


@dataclass(frozen=True, slots=True)
class Limits:
    """What one VMM may use of the host at most; 0 is no limit.

    Attributes:
        cpu_percent: of one CPU: 250 is two and a half.
        memory_bytes: with what it has read from and written to files, which the kernel takes back first.
        tasks: threads.
    """

    cpu_percent: int = 0
    memory_bytes: int = 0
    tasks: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One process to be started.

    Attributes:
        argv: what to run; the program as an absolute path.
        log: what it prints is appended there.
        output: what it prints on standard output is appended there instead.
        descriptors: open files to inherit, where the launcher can (``Launcher.inherits``); a confined one keeps
            what its confinement says.
        confinement: what is left to it of the host; None for all.
        entering: a command that starts it in namespaces of others, put before all else.
    """

    vm_id: str
    argv: Sequence[str]
    log: Path
    limits: Limits = Limits()
    descriptors: Sequence[int] = ()
    output: Path | None = None
    confinement: Confinement | None = None
    entering: Sequence[str] = ()


class Launcher(Protocol):
    """A way to start processes. Holds nothing in memory about them: everything is found by the VM's id.

    Attributes:
        name: as in the key ``vmm.launcher``.
        kind: of the ledger's entries for what it makes besides the process.
        inherits: the process can be given open files.
    """

    name: str
    kind: str
    inherits: bool

    def key(self, vm_id: str) -> str:
        """Key in the ledger of what :meth:`spawn` will make besides the process; empty for nothing."""
        ...

    def spawn(self, job: Job) -> int:
        """Start the process and return its id; 0 if it has ended already.

        Raises:
            BangerError: ``unavailable`` if it cannot be started, ``conflict`` if one for this VM runs already.
        """
        ...

    def outcome(self, vm_id: str) -> Outcome:
        """How the VM's last process ended, until :meth:`release`."""
        ...

    def release(self, key: str) -> None:
        """Take down what :meth:`spawn` made, with whatever still runs in it; already gone is success."""
        ...

    def host_objects(self) -> Sequence[HostObject]:
        """Everything of this kind on the host that carries this installation's id."""
        ...
