"""When a VM's time is over; the clock is frozen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from banger.core import clock
from banger.core.expiry import ExpiryAction, due, expires_at
from banger.core.models import Vm, VmState
from banger.core.wire.vm_spec import VmSpec

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def vm(state: VmState = VmState.RUNNING, **spec: float) -> Vm:
    return Vm("feedfacecafe", "web", VmSpec("debian", **spec), state, NOON)  # type: ignore[arg-type]


def verdict(one: Vm, last_used: datetime = NOON) -> ExpiryAction | None:
    found = due(one, clock.now(), last_used)
    return found and found.action


@freeze_time(NOON)
def test_vm_without_limits_is_never_due() -> None:
    assert expires_at(vm()) is None
    assert verdict(vm(), NOON - timedelta(days=400)) is None


@pytest.mark.parametrize(
    ("passed_s", "expected"), [(0, None), (3599, None), (3600, ExpiryAction.DELETE), (9e6, ExpiryAction.DELETE)]
)
def test_time_to_live_ends_to_the_second(passed_s: float, expected: ExpiryAction | None) -> None:
    with freeze_time(NOON + timedelta(seconds=passed_s)):
        assert verdict(vm(ttl_s=3600.0)) is expected


@freeze_time(NOON + timedelta(hours=2))
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (VmState.STOPPED, ExpiryAction.DELETE),
        (VmState.FAILED, ExpiryAction.DELETE),
        (VmState.PAUSED, ExpiryAction.DELETE),
        (VmState.DELETING, None),
        (VmState.CREATING, None),
    ],
)
def test_time_to_live_ends_whatever_the_vm_does_but_what_is_deleted_already(
    state: VmState, expected: ExpiryAction | None
) -> None:
    assert verdict(vm(state, ttl_s=3600.0)) is expected


def test_idle_counts_from_the_last_use() -> None:
    one = vm(idle_s=600.0)
    with freeze_time(NOON + timedelta(minutes=30)):
        assert verdict(one, NOON + timedelta(minutes=21)) is None
        assert verdict(one, NOON + timedelta(minutes=20)) is ExpiryAction.STOP
        assert verdict(replace(one, state=VmState.PAUSED), NOON) is None


@freeze_time(NOON + timedelta(hours=3))
def test_end_of_life_comes_before_idleness_and_says_why() -> None:
    found = due(vm(ttl_s=7200.0, idle_s=60.0), clock.now(), NOON)
    assert found is not None
    assert found.action is ExpiryAction.DELETE
    assert found.reason == "its time of 120m 00s is over"
