"""What is done about a VM whose row, ledger and host disagree."""

from __future__ import annotations

import pytest

from banger.core.models import VmState
from banger.core.reconcile_action import ReconcileAction, choose_action

S = VmState


@pytest.mark.parametrize(
    ("state", "handles", "process", "alive", "expected"),
    [
        (S.STOPPED, False, False, False, ReconcileAction.NOTHING),
        (S.FAILED, False, False, False, ReconcileAction.NOTHING),
        (S.STOPPED, True, False, False, ReconcileAction.CLEAN),
        (S.STARTING, False, False, False, ReconcileAction.CLEAN),
        (S.RUNNING, False, False, False, ReconcileAction.CLEAN),
        (S.RUNNING, True, True, True, ReconcileAction.ADOPT),
        (S.PAUSED, True, True, True, ReconcileAction.ADOPT),
        (S.RUNNING, True, True, False, ReconcileAction.RECORD_EXIT),
        (S.STOPPED, True, True, False, ReconcileAction.RECORD_EXIT),
        (S.STARTING, True, True, True, ReconcileAction.FINISH_STOP),
        (S.STOPPING, True, True, True, ReconcileAction.FINISH_STOP),
        (S.FAILED, True, True, True, ReconcileAction.FINISH_STOP),
        (S.STOPPED, True, True, True, ReconcileAction.FINISH_STOP),
        (S.CREATING, False, False, False, ReconcileAction.ERASE),
        (S.CREATING, True, True, True, ReconcileAction.ERASE),
        (S.DELETING, True, True, True, ReconcileAction.ERASE),
        (S.SUSPENDING, True, True, True, ReconcileAction.ADOPT),
        (S.SUSPENDING, True, True, False, ReconcileAction.RECORD_EXIT),
        (S.SUSPENDING, False, False, False, ReconcileAction.CLEAN),
        (S.SUSPENDED, False, False, False, ReconcileAction.GIVE_UP),
    ],
)
def test_action_in_each_situation(state, handles, process, alive, expected) -> None:
    assert choose_action(state, has_handles=handles, has_process=process, goes_on=alive) is expected


@pytest.mark.parametrize(
    ("state", "handles", "alive", "expected"),
    [
        (S.SUSPENDED, False, False, ReconcileAction.NOTHING),
        (S.SUSPENDED, True, False, ReconcileAction.FINISH_SUSPEND),
        (S.SUSPENDING, True, True, ReconcileAction.FINISH_SUSPEND),
        (S.SUSPENDING, True, False, ReconcileAction.FINISH_SUSPEND),
        (S.STARTING, True, True, ReconcileAction.FINISH_SUSPEND),
        (S.FAILED, True, False, ReconcileAction.FINISH_SUSPEND),
        (S.STOPPED, False, False, ReconcileAction.NOTHING),
        (S.DELETING, False, False, ReconcileAction.ERASE),
    ],
)
def test_what_it_was_suspended_to_counts_while_it_is_there(state, handles, alive, expected) -> None:
    action = choose_action(state, has_handles=handles, has_process=handles, goes_on=alive, is_saved=True)
    assert action is expected


@pytest.mark.parametrize("state", list(VmState))
@pytest.mark.parametrize("alive", [True, False])
def test_live_process_is_never_forgotten(state: VmState, alive: bool) -> None:
    action = choose_action(state, has_handles=True, has_process=True, goes_on=alive)
    assert action not in (ReconcileAction.NOTHING, ReconcileAction.CLEAN)
