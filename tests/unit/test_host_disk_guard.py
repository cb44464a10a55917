from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.ports import Fill
from banger.core.units import GIB, MIB
from banger.host.disk_guard import Move, Thresholds, Watched, decide
from tests.support.storage import config

LIMITS = Thresholds(512 * MIB, 1024 * MIB, 0.95, 0.90)
ROOMY = Fill(1 * GIB, 10 * GIB)


def moves(free_bytes: int, *vms: Watched) -> dict[str, Move]:
    return {verdict.vm_id: verdict.move for verdict in decide(free_bytes, vms, LIMITS)}


def vm(vm_id: str = "a", fill: Fill = ROOMY, *, is_paused: bool = False) -> Watched:
    return Watched(vm_id, f"vm-{vm_id}", fill, is_paused)


def test_nothing_is_done_while_there_is_room() -> None:
    assert moves(10 * GIB, vm("a"), vm("b")) == {}


def test_every_running_vm_is_paused_when_the_host_is_almost_full() -> None:
    verdicts = decide(100 * MIB, [vm("a"), vm("b"), vm("c", is_paused=True)], LIMITS)
    assert {verdict.vm_id: verdict.move for verdict in verdicts} == {"a": Move.PAUSE, "b": Move.PAUSE}
    assert '"vm-a" is paused' in verdicts[0].reason
    assert "100 MiB" in verdicts[0].reason


def test_between_the_thresholds_everything_stays_as_it_is() -> None:
    assert moves(700 * MIB, vm("a"), vm("b", is_paused=True)) == {}


def test_paused_vm_goes_on_when_there_is_room_again() -> None:
    assert moves(2 * GIB, vm("a", is_paused=True)) == {"a": Move.RESUME}


def test_snapshot_that_may_overflow_is_paused_before_it_does() -> None:
    full = Fill(96 * MIB, 100 * MIB, can_overflow=True)
    assert moves(10 * GIB, vm("a", full), vm("b")) == {"a": Move.PAUSE}
    (verdict,) = decide(10 * GIB, [vm("a", full)], LIMITS)
    assert "make its disk larger" in verdict.reason


def test_disk_that_cannot_overflow_may_be_full() -> None:
    assert moves(10 * GIB, vm("a", Fill(100 * MIB, 100 * MIB))) == {}


@pytest.mark.parametrize(("used", "wanted"), [(92, {}), (80, {"a": Move.RESUME})])
def test_paused_snapshot_goes_on_only_well_below_the_threshold(used: int, wanted: dict[str, Move]) -> None:
    assert moves(10 * GIB, vm("a", Fill(used * MIB, 100 * MIB, can_overflow=True), is_paused=True)) == wanted


def test_snapshot_that_has_failed_is_paused_and_stays_so() -> None:
    broken = Fill(0, 0, failure="its changes are lost")
    (verdict,) = decide(10 * GIB, [vm("a", broken), vm("b", broken, is_paused=True)], LIMITS)
    assert (verdict.vm_id, verdict.move) == ("a", Move.PAUSE)
    assert "its changes are lost" in verdict.reason


@given(st.integers(0, 4 * GIB), st.integers(0, 100), st.booleans())
def test_what_was_just_decided_is_not_undone_at_once(free_bytes: int, used: int, is_paused: bool) -> None:
    one = vm("a", Fill(used * MIB, 100 * MIB, can_overflow=True), is_paused=is_paused)
    for verdict in decide(free_bytes, [one], LIMITS):
        after = vm("a", one.fill, is_paused=verdict.move is Move.PAUSE)
        assert decide(free_bytes, [after], LIMITS) == []


def test_thresholds_in_the_wrong_order_leave_no_vm_flapping() -> None:
    settings = config(storage__pause_free_mib=900, storage__resume_free_mib=100, storage__resume_fill_percent=99)
    found = Thresholds.of(settings.number)
    assert found.resume_free_bytes >= found.pause_free_bytes == 900 * MIB
    assert found.resume_fill <= found.pause_fill == 0.95
