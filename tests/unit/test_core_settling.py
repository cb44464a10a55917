"""What is done about a VM whose row, ledger and host disagree."""

from __future__ import annotations

import pytest

from banger.core.models import VmState
from banger.core.settling import Settlement, settle

S = VmState


@pytest.mark.parametrize(
    ("state", "handles", "process", "alive", "expected"),
    [
        (S.STOPPED, False, False, False, Settlement.NOTHING),
        (S.FAILED, False, False, False, Settlement.NOTHING),
        (S.STOPPED, True, False, False, Settlement.CLEAN),
        (S.STARTING, False, False, False, Settlement.CLEAN),
        (S.RUNNING, False, False, False, Settlement.CLEAN),
        (S.RUNNING, True, True, True, Settlement.ADOPT),
        (S.PAUSED, True, True, True, Settlement.ADOPT),
        (S.RUNNING, True, True, False, Settlement.RECORD_EXIT),
        (S.STOPPED, True, True, False, Settlement.RECORD_EXIT),
        (S.STARTING, True, True, True, Settlement.FINISH_STOP),
        (S.STOPPING, True, True, True, Settlement.FINISH_STOP),
        (S.FAILED, True, True, True, Settlement.FINISH_STOP),
        (S.STOPPED, True, True, True, Settlement.FINISH_STOP),
        (S.CREATING, False, False, False, Settlement.ERASE),
        (S.CREATING, True, True, True, Settlement.ERASE),
        (S.DELETING, True, True, True, Settlement.ERASE),
    ],
)
def test_settlement_of_each_situation(state, handles, process, alive, expected) -> None:
    assert settle(state, has_handles=handles, has_process=process, goes_on=alive) is expected


@pytest.mark.parametrize("state", list(VmState))
@pytest.mark.parametrize("alive", [True, False])
def test_live_process_is_never_forgotten(state: VmState, alive: bool) -> None:
    what = settle(state, has_handles=True, has_process=True, goes_on=alive)
    assert what not in (Settlement.NOTHING, Settlement.CLEAN)
