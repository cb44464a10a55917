"""Restart policies: whether and when a machine that ended is started again. Pure, on wall-clock times.

The policies are those of ``docker run --restart``. What a container's exit status is there, the cause of the end is
here: a guest that powered itself off ended well; a panic, a crash, a kill from outside or lack of memory is a failure.
A reboot is no end at all, unless the VM was told that it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import is_failure
from banger.core.models import ExitReason, Restarts, Vm, VmState
from banger.core.wire.vm_spec import VmSpec

#: Who ran so long is taken to be well: the next pause is none again.
WELL_AFTER_S = 10.0
FIRST_DELAY_S, MOST_DELAY_S = 1.0, 60.0
#: An ephemeral VM's session sees the machine end at the same time and deletes the VM: it is not overtaken.
SESSION_GRACE_S = 3.0

_POLICY = re.compile(r"(no|always|unless-stopped|on-failure)(?::(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """``no``, ``on-failure[:N]``, ``always`` or ``unless-stopped``; ``most`` 0: as often as it fails."""

    name: str = "no"
    most: int = 0

    @classmethod
    def parse(cls, text: str) -> RestartPolicy:
        """Read what was typed. Raises ``usage``."""
        match = _POLICY.fullmatch(text)
        if match is None or (match[2] and match[1] != "on-failure"):
            hint = "use no, on-failure, on-failure:3, always or unless-stopped"
            raise BangerError(ErrorKind.USAGE, f'"{text}" is not a restart policy', subject=text, hint=hint)
        return cls(match[1], int(match[2] or 0))

    @classmethod
    def kept(cls, text: str) -> RestartPolicy:
        """Read what a row has; what this banger does not know starts nothing again, and hinders nothing."""
        try:
            return cls.parse(text)
        except BangerError:
            return cls()

    @property
    def is_lasting(self) -> bool:
        """It brings the machine back whatever ended it, the host's reboot too."""
        return self.name in ("always", "unless-stopped")

    def wants(self, reason: ExitReason, count: int) -> bool:
        """True if a machine that ended for ``reason``, and was started again ``count`` times, is to come back."""
        if self.is_lasting:
            return True
        return self.name == "on-failure" and is_failure(reason) and (not self.most or count < self.most)


def check_restarting(spec: VmSpec) -> None:
    """Raise ``usage`` for a policy that is none, or that contradicts the rest of the wish."""
    policy = RestartPolicy.parse(spec.restart)
    if spec.ephemeral and policy.name != "no":
        message = "a VM that is deleted when it stops cannot have a restart policy"
        raise BangerError(ErrorKind.USAGE, message, subject=spec.restart, hint="give -d, --keep or --name, and no --rm")


def after_end(vm: Vm, reason: ExitReason, now: datetime) -> Restarts:
    """What is kept of a machine that ended although nobody asked now; ``due_at`` is set if it is started again.

    Args:
        vm: the row as it was until now.
        reason: why it ended.
        now: the present.
    """
    if vm.state not in (VmState.RUNNING, VmState.PAUSED):
        return _after_interruption(vm, now)
    rebooted = reason is ExitReason.GUEST_REBOOT and vm.spec.on_reboot == "restart"
    if not rebooted and not RestartPolicy.kept(vm.spec.restart).wants(reason, vm.restarts.count):
        return Restarts(vm.restarts.count)
    was_well = vm.started_at is not None and (now - vm.started_at).total_seconds() >= WELL_AFTER_S
    return _next(vm, now, was_well=was_well, counts=not rebooted)


def after_failed_start(vm: Vm, now: datetime) -> Restarts:
    """The same after a start that failed: one that banger itself had wished may be tried again."""
    policy = RestartPolicy.kept(vm.spec.restart)
    if vm.restarts.due_at is None or not policy.wants(ExitReason.VMM_CRASH, vm.restarts.count):
        return Restarts(vm.restarts.count)
    return _next(vm, now, was_well=False, counts=True)


def _after_interruption(vm: Vm, now: datetime) -> Restarts:
    """The daemon ended in the middle of a start, a stop or a restart: what was to come up still is."""
    if vm.restarts.due_at is None and vm.state is VmState.STARTING and RestartPolicy.kept(vm.spec.restart).is_lasting:
        return replace(vm.restarts, due_at=now)
    return vm.restarts


def is_due(vm: Vm, now: datetime) -> bool:
    """It is down, and the time has come to start it again."""
    return vm.state is VmState.STOPPED and vm.restarts.due_at is not None and vm.restarts.due_at <= now


def comes_with_daemon(vm: Vm) -> bool:
    """A new daemon starts it although it was stopped by hand: the policy ``always``. Not if it was never started."""
    was_up = vm.stopped_at is not None and vm.restarts.due_at is None
    return RestartPolicy.kept(vm.spec.restart).name == "always" and vm.state is VmState.STOPPED and was_up


def _next(vm: Vm, now: datetime, *, was_well: bool, counts: bool) -> Restarts:
    """The first restart waits for nothing; of a machine that does not stay up, each waits twice as long as the last."""
    tries = 1 if was_well else vm.restarts.tries + 1
    delay_s = min(FIRST_DELAY_S * 2 ** min(tries - 2, 10), MOST_DELAY_S) if tries > 1 else 0.0
    if vm.spec.ephemeral:
        delay_s = max(delay_s, SESSION_GRACE_S)
    return Restarts(vm.restarts.count + counts, tries, now + timedelta(seconds=delay_s))
