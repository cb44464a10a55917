"""The condition of a machine, from the replies of QEMU's monitor. Pure.

Run states are those of ``query-status``, the states of disks those of ``query-block`` (QEMU: ``qapi/run-state.json``,
``qapi/block-core.json``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from banger.core.ports import Condition, Health
from banger.vmm.qemu import failures

IO_ERROR = "io-error"
INTERNAL_ERROR = "internal-error"

#: ``io-status`` of a disk: of every error but ``ENOSPC`` QEMU says no more than that there was one.
_NO_SPACE, _FAILED = "nospace", "failed"
#: A paused machine that was saved, and one whose save nobody ended, stand still in another state.
STANDING = frozenset({"paused", "postmigrate", "finish-migrate"})


def condition(status: str, disks: Iterable[Mapping[str, Any]], log: str) -> Condition:
    """How a machine is.

    Args:
        status: its run state.
        disks: what ``query-block`` answered; asked for only in the state ``io-error``.
        log: the end of what QEMU printed; looked at only in the state ``internal-error``.
    """
    if status in STANDING:
        return Condition(Health.PAUSED, "it is paused")
    if status == INTERNAL_ERROR:
        return Condition(Health.BROKEN, failures.kvm_failure(log) or "its VMM cannot go on with it (internal error)")
    if status == IO_ERROR:
        return _stalled({str(disk.get("io-status", "")) for disk in disks})
    return Condition()


def _stalled(states: set[str]) -> Condition:
    if _FAILED in states or _NO_SPACE not in states:
        return Condition(Health.DISK_FAILED, "the host could not write to its disk (input/output error)")
    return Condition(Health.NO_ROOM, "the host's disk is full: what it writes finds no room")
