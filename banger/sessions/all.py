"""All session services, created together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from banger.actors.messages import Command
from banger.core.attendance import Attendance
from banger.core.evidence import Evidence
from banger.core.models import Vm
from banger.core.ports import Guests
from banger.core.waiter import Waiter
from banger.sessions.checkpoints import CheckpointService
from banger.sessions.exec import ExecService
from banger.sessions.files import FileService
from banger.sessions.machines import MachineService
from banger.sessions.run import RunService
from banger.sessions.ssh import SshService
from banger.sessions.waking import Waking
from banger.store import Store


@dataclass(frozen=True, slots=True)
class Sessions:
    """What a front end is given."""

    checkpoints: CheckpointService
    exec: ExecService
    files: FileService
    machines: MachineService
    run: RunService
    ssh: SshService


def make_sessions(
    store: Store,
    guests: Guests,
    submit: Callable[[Command], Waiter],
    attendance: Attendance,
    evidence: Callable[[], Sequence[Evidence]],
    is_suspended: Callable[[Vm], bool],
) -> Sessions:
    """Join them; see :class:`RunService` and :class:`Waking` for what the arguments are."""
    waking = Waking(submit, is_suspended)
    execs = ExecService(store, guests, waking)
    run = RunService(store, submit, attendance, evidence, execs)
    checkpoints = CheckpointService(store, submit, waking)
    files, ssh = FileService(guests, waking), SshService(guests, waking)
    return Sessions(checkpoints, execs, files, MachineService(guests), run, ssh)
