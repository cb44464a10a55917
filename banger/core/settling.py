"""What is to be done about a VM whose row, ledger and host may disagree. Pure, so that a dry run tells the truth."""

from __future__ import annotations

from enum import StrEnum

from banger.core.models import VmState
from banger.core.states import LIVE


class Settlement(StrEnum):
    """What to do. The values read as what a dry run says would be done."""

    NOTHING = "nothing"
    ADOPT = "adopt"
    FINISH_STOP = "stop: the daemon ended while it was starting or stopping"
    CLEAN = "clean up what a start left"
    RECORD_EXIT = "record that it ended, and clean up"
    ERASE = "remove: it is half created or half deleted"
    FORSAKE = "remove: the session that held it is over"


def settle(
    state: VmState, *, has_handles: bool, has_process: bool, goes_on: bool, forsaken: bool = False
) -> Settlement:
    """Decide.

    Args:
        state: what the row says.
        has_handles: the ledger names anything at all.
        has_process: the ledger names a VMM process.
        goes_on: that very process lives, and so does its machine.
        forsaken: it was held by a session that is over.
    """
    if state in (VmState.CREATING, VmState.DELETING):
        return Settlement.ERASE
    if forsaken:
        return Settlement.FORSAKE
    if not has_process:
        return Settlement.CLEAN if state in LIVE or has_handles else Settlement.NOTHING
    if not goes_on:
        return Settlement.RECORD_EXIT
    return Settlement.ADOPT if state in (VmState.RUNNING, VmState.PAUSED) else Settlement.FINISH_STOP
