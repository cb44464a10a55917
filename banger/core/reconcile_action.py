"""What to do with a VM whose row, ledger and host may disagree. Pure, so that a dry run can show it."""

from __future__ import annotations

from enum import StrEnum

from banger.core.models import VmState
from banger.core.states import LIVE


class ReconcileAction(StrEnum):
    """What to do. The values read as what a dry run says would be done."""

    NOTHING = "nothing"
    ADOPT = "adopt"
    FINISH_SUSPEND = "finish suspending it"
    GIVE_UP = "stop: what it was suspended to is not there"
    FINISH_STOP = "stop: the daemon ended while it was starting or stopping"
    CLEAN = "clean up what a start left"
    RECORD_EXIT = "record that it ended, and clean up"
    ERASE = "remove: it is half created or half deleted"
    REMOVE_ABANDONED = "remove: the session that held it is over"


def choose_action(
    state: VmState,
    *,
    has_handles: bool,
    has_process: bool,
    goes_on: bool,
    abandoned: bool = False,
    is_saved: bool = False,
) -> ReconcileAction:
    """Decide.

    Args:
        state: what the row says.
        has_handles: the ledger names anything at all.
        has_process: the ledger names a VMM process.
        goes_on: that very process lives, and so does its machine.
        abandoned: it was held by a session that is over.
        is_saved: what it was suspended to is there, and its guest has done nothing since.
    """
    if state in (VmState.CREATING, VmState.DELETING):
        return ReconcileAction.ERASE
    if abandoned:
        return ReconcileAction.REMOVE_ABANDONED
    if is_saved and state is not VmState.STOPPED:
        is_done = state is VmState.SUSPENDED and not has_handles
        return ReconcileAction.NOTHING if is_done else ReconcileAction.FINISH_SUSPEND
    if state is VmState.SUSPENDED:
        return ReconcileAction.GIVE_UP
    if not has_process:
        return ReconcileAction.CLEAN if state in LIVE or has_handles else ReconcileAction.NOTHING
    if not goes_on:
        return ReconcileAction.RECORD_EXIT
    up = (VmState.RUNNING, VmState.PAUSED, VmState.SUSPENDING)
    return ReconcileAction.ADOPT if state in up else ReconcileAction.FINISH_STOP
