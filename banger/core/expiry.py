"""Expiry of VMs: pure decisions on wall-clock times, which survive a restart of the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from banger.core.models import Vm, VmState
from banger.core.units import LONGEST_S, format_duration


class ExpiryAction(StrEnum):
    """What is due."""

    DELETE = "delete"
    STOP = "stop"
    SUSPEND = "suspend"


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done with a VM whose time is over, and why, for people."""

    action: ExpiryAction
    reason: str


def expires_at(vm: Vm) -> datetime | None:
    """When its ``--ttl`` ends; None if it has none."""
    if not 0 < vm.spec.ttl_s <= LONGEST_S:  # also what an earlier version let in
        return None
    return vm.created_at + timedelta(seconds=vm.spec.ttl_s)


def due(vm: Vm, now: datetime, last_used: datetime) -> Due | None:
    """What is due now, if anything. ``last_used`` is when somebody was last seen using the guest."""
    end = expires_at(vm)
    if end is not None and now >= end and vm.state not in (VmState.CREATING, VmState.DELETING):
        return Due(ExpiryAction.DELETE, f"its time of {format_duration(vm.spec.ttl_s)} is over")
    ways = ((ExpiryAction.STOP, vm.spec.idle_s), (ExpiryAction.SUSPEND, vm.spec.idle_suspend_s))
    for action, idle_s in ways:
        if 0 < idle_s <= LONGEST_S and vm.state is VmState.RUNNING and now >= last_used + timedelta(seconds=idle_s):
            return Due(action, f"nobody has used it for {format_duration(idle_s)}")
    return None


def ends_unused(vm: Vm) -> bool:
    """Whether anybody uses it is worth to know."""
    return bool(vm.spec.idle_s or vm.spec.idle_suspend_s)
