"""Guests that stood still have the right time again when they go on: by hand, by the guard, or after their host slept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.actors.housekeeping import Housekeeper
from banger.actors.messages import CreateVm, DeleteVm, PauseVm, ResumeVm
from banger.actors.vm_clock import WakeWatch
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World

HOUR_NS = 3600 * 10**9
SECOND_NS = 10**9


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, FakeVmm())
    yield world
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    world.stop()


def running(world: World, name: str = "web") -> Vm:
    vm: Vm = world.do(CreateVm(new_id(), name, VmSpec("alpine"), start=True))
    return vm


def is_right(world: World, name: str = "web") -> bool:
    return abs(world.guests.late_ns.get(name, 0)) < SECOND_NS


@pytest.mark.parametrize("by", ["user", "guard"])
def test_guest_has_the_right_time_again_after_a_pause(world: World, by: str) -> None:
    vm = running(world)
    world.do(PauseVm(vm.id, vm.name, by, "no room"))
    world.guests.late_ns["web"] = HOUR_NS
    world.do(ResumeVm(vm.id, vm.name, by))
    assert is_right(world)


def test_clock_that_is_hardly_late_or_ahead_is_left_to_the_guest(world: World) -> None:
    vm = running(world)
    for late_ns in (SECOND_NS // 2, -HOUR_NS):
        world.do(PauseVm(vm.id, vm.name))
        world.guests.late_ns["web"] = late_ns
        world.do(ResumeVm(vm.id, vm.name))
        assert world.guests.late_ns["web"] == late_ns


def test_guest_that_does_not_answer_goes_on_all_the_same(world: World) -> None:
    def refuses(vm: Vm) -> None:
        raise BangerError(ErrorKind.UNAVAILABLE, "its agent is gone")

    vm = running(world)
    world.do(PauseVm(vm.id, vm.name))
    world.guests.sessions = refuses  # type: ignore[assignment]
    assert world.do(ResumeVm(vm.id, vm.name)).state is VmState.RUNNING


def test_guests_have_the_right_time_again_after_their_host_has_slept(world: World) -> None:
    asleep_s = [100.0]  # before the daemon began
    running(world)
    paused = running(world, "paused")
    world.do(PauseVm(paused.id, "paused"))
    watch = WakeWatch(world.services.vms, lambda: asleep_s[0])
    world.guests.late_ns |= {"web": HOUR_NS, "paused": HOUR_NS}

    def look() -> None:
        watch.look(lambda: [vm for vm in world.store.vms.all() if vm.state is VmState.RUNNING])

    look()
    assert world.guests.late_ns["web"] == HOUR_NS  # it has not slept
    asleep_s[0] += 3600
    look()
    assert is_right(world)
    assert world.guests.late_ns["paused"] == HOUR_NS  # it is not asked: it stands still
    world.guests.late_ns["web"] = HOUR_NS
    look()
    assert world.guests.late_ns["web"] == HOUR_NS  # once for each sleep


def test_housekeeper_looks_whether_the_host_has_slept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running(world)
    housekeeper = Housekeeper(world.services)
    world.guests.late_ns["web"] = HOUR_NS
    monkeypatch.setattr(housekeeper._wakes, "_slept", lambda: 10.0**9)
    for chore in housekeeper.chores:
        chore()
    assert is_right(world)
