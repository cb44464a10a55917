"""Which ends a machine comes back from, and after how long."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, Restarts, Vm, VmState
from banger.core.restarting import (
    MOST_DELAY_S,
    RestartPolicy,
    after_end,
    after_failed_start,
    check_restarting,
    comes_with_daemon,
    is_due,
)
from banger.core.wire.vm_spec import VmSpec

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def vm_with(restart: str = "no", *, up_s: float = 60.0, **fields: object) -> Vm:
    spec = VmSpec("alpine", restart=restart, **{k: fields.pop(k) for k in ("on_reboot", "ephemeral") if k in fields})  # type: ignore[arg-type]
    made = Vm("0123456789ab", "web", spec, VmState.RUNNING, NOW, started_at=NOW - timedelta(seconds=up_s))
    return replace(made, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "comes_back_from"),
    [
        ("no", set()),
        ("on-failure", {"guest_panic", "vmm_crash", "killed", "out_of_memory", "kvm_failure"}),
        ("always", set(ExitReason) - {ExitReason.NONE, ExitReason.REQUESTED, ExitReason.GUEST_REBOOT}),
        ("unless-stopped", set(ExitReason) - {ExitReason.NONE, ExitReason.REQUESTED, ExitReason.GUEST_REBOOT}),
    ],
)
def test_policy_brings_back_what_docker_would(policy: str, comes_back_from: set[str]) -> None:
    ends = set(ExitReason) - {ExitReason.NONE, ExitReason.REQUESTED, ExitReason.GUEST_REBOOT}
    assert {end for end in ends if after_end(vm_with(policy), end, NOW).due_at} == comes_back_from


@pytest.mark.parametrize("policy", ["no", "on-failure:1", "always"])
def test_guest_that_reboots_comes_back_at_once_whatever_the_policy(policy: str) -> None:
    after = after_end(vm_with(policy), ExitReason.GUEST_REBOOT, NOW)
    assert (after.due_at, after.count) == (NOW, 0)


def test_guest_that_reboots_stays_down_if_that_was_wished() -> None:
    assert after_end(vm_with(on_reboot="stop"), ExitReason.GUEST_REBOOT, NOW).due_at is None
    assert after_end(vm_with("on-failure", on_reboot="stop"), ExitReason.GUEST_REBOOT, NOW).due_at is None
    assert after_end(vm_with("always", on_reboot="stop"), ExitReason.GUEST_REBOOT, NOW).due_at == NOW


@pytest.mark.parametrize("policy", ["", "weekly", "on-failure:\n", "always:3", "no\0", "9" * 5000])
def test_policy_of_a_row_that_is_none_starts_nothing_and_hinders_nothing(policy: str) -> None:
    vm = vm_with(policy)
    assert after_end(vm, ExitReason.GUEST_PANIC, NOW).due_at is None
    assert after_end(replace(vm, state=VmState.STARTING), ExitReason.VMM_CRASH, NOW).due_at is None
    assert after_failed_start(replace(vm, restarts=Restarts(due_at=NOW)), NOW).due_at is None
    assert not comes_with_daemon(replace(vm, state=VmState.STOPPED, stopped_at=NOW))
    with pytest.raises(BangerError):
        check_restarting(vm.spec)


def test_panic_is_no_reboot() -> None:
    assert after_end(vm_with(), ExitReason.GUEST_PANIC, NOW).due_at is None


def test_failures_are_counted_and_the_last_try_is_the_last() -> None:
    vm, tries = vm_with("on-failure:3"), 0
    while (after := after_end(vm, ExitReason.GUEST_PANIC, NOW)).due_at is not None:
        vm, tries = replace(vm, restarts=replace(after, due_at=None)), tries + 1
    assert (tries, after.count) == (3, 3)


def test_machine_that_does_not_stay_up_waits_longer_each_time_and_never_more_than_the_most() -> None:
    vm, delays = vm_with("always", up_s=1.0), []
    for _ in range(12):
        after = after_end(vm, ExitReason.GUEST_PANIC, NOW)
        assert after.due_at is not None
        delays.append((after.due_at - NOW).total_seconds())
        vm = replace(vm, restarts=replace(after, due_at=None))
    assert delays[:6] == [0, 1, 2, 4, 8, 16]
    assert max(delays) == delays[-1] == MOST_DELAY_S
    well = replace(vm, started_at=NOW - timedelta(minutes=5))
    assert after_end(well, ExitReason.GUEST_PANIC, NOW).due_at == NOW


def test_reboot_loop_is_slowed_down_too() -> None:
    vm = vm_with(up_s=1.0, restarts=Restarts(tries=9))
    assert after_end(vm, ExitReason.GUEST_REBOOT, NOW).due_at == NOW + timedelta(seconds=MOST_DELAY_S)


def test_machine_that_is_deleted_when_it_stops_leaves_its_session_time_to_end() -> None:
    after = after_end(vm_with(ephemeral=True), ExitReason.GUEST_REBOOT, NOW)
    assert after.due_at is not None
    assert after.due_at > NOW


def test_failed_start_of_bangers_own_is_tried_again_one_by_hand_is_not() -> None:
    by_hand = vm_with("always", state=VmState.STARTING)
    own = replace(by_hand, restarts=Restarts(1, 1, NOW))
    assert after_failed_start(by_hand, NOW).due_at is None
    assert after_failed_start(own, NOW).due_at == NOW + timedelta(seconds=1)
    rebooted = replace(own, spec=replace(own.spec, restart="no"))
    assert after_failed_start(rebooted, NOW).due_at is None


def test_start_that_the_end_of_the_daemon_interrupts_is_made_up_for_as_the_policy_says() -> None:
    for policy, comes in (("no", False), ("on-failure", False), ("always", True), ("unless-stopped", True)):
        vm = vm_with(policy, state=VmState.STARTING)
        assert (after_end(vm, ExitReason.KILLED, NOW).due_at is not None) is comes
        assert after_end(replace(vm, state=VmState.STOPPING), ExitReason.KILLED, NOW).due_at is None
    again = vm_with(state=VmState.STOPPING, restarts=Restarts(due_at=NOW))
    assert after_end(again, ExitReason.KILLED, NOW).due_at == NOW


def test_only_always_comes_with_a_new_daemon_after_it_was_stopped_by_hand() -> None:
    for policy in ("no", "on-failure", "unless-stopped", "always"):
        stopped = vm_with(policy, state=VmState.STOPPED, stopped_at=NOW)
        assert comes_with_daemon(stopped) is (policy == "always")
        assert not comes_with_daemon(replace(stopped, stopped_at=None))  # never started


def test_vm_is_due_only_while_it_is_down_and_from_its_time_on() -> None:
    vm = vm_with(state=VmState.STOPPED, restarts=Restarts(due_at=NOW))
    assert is_due(vm, NOW)
    assert not is_due(vm, NOW - timedelta(seconds=1))
    assert not is_due(replace(vm, state=VmState.FAILED), NOW)


@pytest.mark.parametrize("text", ["", "No", "sometimes", "on-failure:", "on-failure:-1", "on-failure:x", "always:3"])
def test_what_is_no_policy_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(BangerError, match="restart policy") as caught:
        RestartPolicy.parse(text)
    assert caught.value.kind is ErrorKind.USAGE
    assert "unless-stopped" in caught.value.hint


def test_spec_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(BangerError, match="deleted when it stops"):
        check_restarting(VmSpec("alpine", ephemeral=True, restart="always"))
    check_restarting(VmSpec("alpine", ephemeral=True))
