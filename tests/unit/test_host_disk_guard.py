from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.ports import Condition, Fill, Health
from banger.core.units import GIB, KIB, MIB
from banger.host.disk_guard import DISK, PAUSED_BY, Move, Thresholds, Watched, decide, stalled
from tests.support.storage import config

LIMITS = Thresholds(512 * MIB, 1024 * MIB, 0.95, 0.90)
ROOMY = Fill(1 * GIB, 10 * GIB)


def moves(free_bytes: int, *vms: Watched) -> dict[str, Move]:
    return {decision.vm_id: decision.move for decision in decide(free_bytes, vms, LIMITS)}


def vm(
    vm_id: str = "a", fill: Fill = ROOMY, *, is_paused: bool = False, taken: int = 0, is_fragile: bool = False
) -> Watched:
    return Watched(vm_id, f"vm-{vm_id}", fill, is_paused, taken, is_fragile)


def test_nothing_is_done_while_there_is_room() -> None:
    assert moves(10 * GIB, vm("a", taken=5 * GIB), vm("b", is_fragile=True)) == {}


def test_who_fills_the_disk_is_paused_and_its_siblings_are_not() -> None:
    decisions = decide(400 * MIB, [vm("a", taken=2 * GIB), vm("b", taken=200 * KIB), vm("c")], LIMITS)
    assert {decision.vm_id: decision.move for decision in decisions} == {"a": Move.PAUSE}
    assert '"vm-a" is paused' in decisions[0].reason
    assert "400 MiB" in decisions[0].reason
    assert "it has just taken 2.0 GiB" in decisions[0].reason


def test_disk_that_is_full_all_at_once_pauses_none_that_takes_nothing() -> None:
    assert moves(0, vm("a", taken=1 * GIB), vm("b"), vm("c", is_paused=True)) == {"a": Move.PAUSE}


def test_as_few_as_will_do_are_paused_the_fastest_first() -> None:
    vms = [vm("a", taken=30 * MIB), vm("b", taken=100 * MIB), vm("c", taken=20 * MIB), vm("d", taken=1 * MIB)]
    assert moves(400 * MIB, *vms) == {"a": Move.PAUSE, "b": Move.PAUSE}  # 21 MiB a look would take 19 looks
    assert moves(100 * MIB, *vms) == {"a": Move.PAUSE, "b": Move.PAUSE, "c": Move.PAUSE}
    assert moves(0, *vms) == dict.fromkeys("abcd", Move.PAUSE)


def test_slow_writer_goes_on_while_what_is_left_does_for_a_while() -> None:
    assert moves(100 * MIB, vm("a", taken=1 * MIB)) == {}
    assert moves(10 * MIB, vm("a", taken=1 * MIB)) == {"a": Move.PAUSE}


def test_nobody_is_paused_for_what_somebody_else_writes() -> None:
    assert moves(100 * MIB, vm("a"), vm("b")) == {}


def test_vm_that_would_lose_what_it_writes_is_paused_before_there_is_no_room_though_it_writes_nothing() -> None:
    fragile = vm("b", is_fragile=True)
    assert moves(400 * MIB, vm("a", taken=1 * GIB), fragile) == {"a": Move.PAUSE}
    decisions = decide(200 * MIB, [vm("a", taken=1 * GIB), fragile, vm("c")], LIMITS)
    assert {decision.vm_id: decision.move for decision in decisions} == {"a": Move.PAUSE, "b": Move.PAUSE}
    assert "would lose what it writes" in decisions[1].reason


def test_between_the_thresholds_everything_stays_as_it_is() -> None:
    assert moves(700 * MIB, vm("a", taken=1 * GIB), vm("b", is_paused=True)) == {}


def test_paused_vm_goes_on_when_there_is_room_again() -> None:
    assert moves(2 * GIB, vm("a", is_paused=True)) == {"a": Move.RESUME}


def test_snapshot_that_may_overflow_is_paused_before_it_does() -> None:
    full = Fill(96 * MIB, 100 * MIB, can_overflow=True)
    assert moves(10 * GIB, vm("a", full), vm("b")) == {"a": Move.PAUSE}
    (decision,) = decide(10 * GIB, [vm("a", full)], LIMITS)
    assert "make its disk larger" in decision.reason


def test_disk_that_cannot_overflow_may_be_full() -> None:
    assert moves(10 * GIB, vm("a", Fill(100 * MIB, 100 * MIB))) == {}


@pytest.mark.parametrize(("used", "wanted"), [(92, {}), (80, {"a": Move.RESUME})])
def test_paused_snapshot_goes_on_only_well_below_the_threshold(used: int, wanted: dict[str, Move]) -> None:
    assert moves(10 * GIB, vm("a", Fill(used * MIB, 100 * MIB, can_overflow=True), is_paused=True)) == wanted


def test_snapshot_that_has_failed_is_paused_and_stays_so() -> None:
    broken = Fill(0, 0, failure="its changes are lost")
    (decision,) = decide(10 * GIB, [vm("a", broken), vm("b", broken, is_paused=True)], LIMITS)
    assert (decision.vm_id, decision.move) == ("a", Move.PAUSE)
    assert "its changes are lost" in decision.reason


_VMS = st.lists(
    st.builds(
        lambda used, taken, paused, fragile: (Fill(used * MIB, 100 * MIB, can_overflow=True), taken, paused, fragile),
        st.integers(0, 100), st.integers(0, 2 * GIB), st.booleans(), st.booleans(),
    ),
    max_size=5,
)  # fmt: skip


@given(st.integers(0, 4 * GIB), _VMS)
def test_what_was_just_decided_is_not_undone_at_once(
    free_bytes: int, states: list[tuple[Fill, int, bool, bool]]
) -> None:
    vms = [
        vm(str(index), fill, is_paused=paused, taken=taken, is_fragile=fragile)
        for index, (fill, taken, paused, fragile) in enumerate(states)
    ]
    decided = moves(free_bytes, *vms)
    assert len(decided) == len(decide(free_bytes, vms, LIMITS)), "one decision for each VM"
    after = [
        vm(one.vm_id, one.fill, is_paused=decided.get(one.vm_id, Move.PAUSE if one.is_paused else None) is Move.PAUSE)
        for one in vms
    ]
    changed = moves(free_bytes, *after)
    assert not {vm_id for vm_id in decided if changed.get(vm_id, decided[vm_id]) is not decided[vm_id]}


@given(st.integers(0, 512 * MIB - 1), _VMS)
def test_whoever_takes_the_most_is_paused_first(free_bytes: int, states: list[tuple[Fill, int, bool, bool]]) -> None:
    running = [vm(str(index), taken=taken) for index, (_, taken, _, _) in enumerate(states)]
    paused = moves(free_bytes, *running)
    least = min((one.taken_bytes for one in running if one.vm_id in paused), default=0)
    spared = [one.taken_bytes for one in running if one.vm_id not in paused]
    assert all(taken <= least for taken in spared) or not paused
    assert sum(spared) * 12 <= free_bytes, "what is left would do for a minute"


def test_thresholds_in_the_wrong_order_leave_no_vm_flapping() -> None:
    settings = config(storage__pause_free_mib=900, storage__resume_free_mib=100, storage__resume_fill_percent=99)
    found = Thresholds.of(settings.number)
    assert found.resume_free_bytes >= found.pause_free_bytes == 900 * MIB
    assert found.resume_fill <= found.pause_fill == 0.95


@pytest.mark.parametrize(
    ("health", "by", "word"),
    [(Health.NO_ROOM, PAUSED_BY, "goes on when there is room"), (Health.DISK_FAILED, DISK, "nothing is lost")],
)
def test_machine_that_waits_for_the_host_is_the_guards_only_if_it_waits_for_room(
    health: Health, by: str, word: str
) -> None:
    found, reason = stalled("web", Condition(health, "its writes are not taken"))
    assert found == by
    assert '"web" is paused: its writes are not taken' in reason
    assert word in reason
