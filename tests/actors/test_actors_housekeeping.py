"""VMs whose time is over are deleted or stopped; the wall clock is frozen and moved by hand."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import replace
from datetime import timedelta

import pytest
from freezegun import freeze_time

from banger.actors.housekeeping import Housekeeper
from banger.actors.messages import CreateVm, DeleteVm, KillVm, PauseVm, ReconcileHost, ResumeVm
from banger.core import clock
from banger.core.errors import BangerError
from banger.core.models import VmState
from banger.core.names import new_id
from banger.core.ports import Fill
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_capability import FakeCapability
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.waiting import eventually


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, FakeVmm())
    world.guests.on_power_off = lambda vm: world.vmm.press_button(world.layout.vm_run_dir(vm.id))
    yield world
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    assert world.leftovers() == []
    world.stop()


def running(world, name="web", **spec):
    return world.do(CreateVm(new_id(), name, VmSpec("alpine", **spec), start=True))


def look_in(world, housekeeper: Housekeeper, **later) -> None:
    with freeze_time(clock.now() + timedelta(**later)):
        housekeeper.look()
    world.do(ReconcileHost())  # behind whatever was wished


def test_vm_is_deleted_when_its_time_to_live_is_over(world):
    running(world, ttl_s=3600.0)
    housekeeper = Housekeeper(world.services)
    look_in(world, housekeeper, minutes=59)
    assert world.vm("web").state is VmState.RUNNING
    look_in(world, housekeeper, minutes=61)
    eventually(lambda: world.store.vms.by_name("web") is None, what="it is deleted")


def test_stopped_vm_is_deleted_too_also_after_a_restart_of_the_daemon(world):
    world.do(CreateVm(new_id(), "web", VmSpec("alpine", ttl_s=3600.0)))
    world.restart()
    look_in(world, Housekeeper(world.services), hours=2)
    eventually(lambda: world.store.vms.by_name("web") is None, what="it is deleted")


def test_idle_vm_is_stopped_and_keeps_its_disk(world):
    running(world, idle_s=600.0)
    housekeeper = Housekeeper(world.services)
    look_in(world, housekeeper, minutes=9)
    assert world.vm("web").state is VmState.RUNNING
    look_in(world, housekeeper, minutes=11)
    eventually(lambda: world.vm("web").state is VmState.STOPPED, what="it is stopped")


def test_vm_in_use_is_not_idle_and_the_time_counts_from_its_end(world):
    vm = running(world, idle_s=600.0)
    housekeeper = Housekeeper(world.services)
    world.guests.busy[vm.id] = 1
    look_in(world, housekeeper, minutes=30)
    world.guests.busy.clear()
    look_in(world, housekeeper, minutes=35)
    assert world.vm("web").state is VmState.RUNNING
    look_in(world, housekeeper, minutes=41)
    eventually(lambda: world.vm("web").state is VmState.STOPPED, what="it is stopped")


def test_unused_vm_is_suspended_if_that_is_wished(world):
    running(world, idle_suspend_s=600.0)
    housekeeper = Housekeeper(world.services)
    look_in(world, housekeeper, minutes=9)
    assert world.vm("web").state is VmState.RUNNING
    look_in(world, housekeeper, minutes=11)
    eventually(lambda: world.vm("web").state is VmState.SUSPENDED, what="it is suspended")
    assert world.vm("web").reason == "nobody has used it for 10m 00s"


def test_vm_that_cannot_be_suspended_is_not_tried_all_the_time_and_still_stopped(world):
    running(world, idle_suspend_s=600.0, idle_s=1800.0)
    tries = []
    world.vmm.while_saving = lambda: tries.append(len(tries))
    world.vmm.cannot_save = "a part of it is elsewhere"
    housekeeper = Housekeeper(world.services)
    for minutes in (11, 12, 13):
        look_in(world, housekeeper, minutes=minutes)
    world.do(ReconcileHost())
    suspends = [one for one in world.operations.all() if one.kind == "vm.suspend"]
    assert (len(suspends), tries, world.vm("web").state) == (1, [], VmState.RUNNING)
    look_in(world, housekeeper, minutes=31)
    eventually(lambda: world.vm("web").state is VmState.STOPPED, what="it is stopped")


def test_vm_whose_snapshot_is_nearly_full_stands_still_until_there_is_room(world):
    vm = running(world)
    housekeeper = Housekeeper(world.services)
    fills = world.services.host.storages.named("fake").fills
    fills[vm.id] = Fill(used_bytes=96, total_bytes=100, can_overflow=True)
    housekeeper.guard()
    eventually(lambda: world.vm("web").state is VmState.PAUSED, what="it stands still")
    assert world.vm("web").paused_by == "guard"
    assert "its snapshot holds" in world.vm("web").reason
    fills[vm.id] = Fill(used_bytes=93, total_bytes=100, can_overflow=True)
    housekeeper.guard()
    world.do(ReconcileHost())
    assert world.vm("web").state is VmState.PAUSED, "between the thresholds nothing changes"
    fills[vm.id] = Fill(used_bytes=10, total_bytes=100, can_overflow=True)
    housekeeper.guard()
    eventually(lambda: world.vm("web").state is VmState.RUNNING, what="it goes on")
    assert (world.vm("web").paused_by, world.vm("web").reason) == ("", "")


def test_vm_that_its_user_paused_is_not_the_guards_to_resume(world):
    vm = running(world)
    world.do(PauseVm(vm.id, vm.name))
    Housekeeper(world.services).guard()
    world.do(ReconcileHost())
    assert world.vm("web").state is VmState.PAUSED


def nearly_full(monkeypatch, free_bytes: int = 1 << 20) -> None:
    usage = namedtuple("usage", "total used free")
    full = usage(1 << 40, 1 << 40, free_bytes)
    monkeypatch.setattr("banger.actors.housekeeping.shutil.disk_usage", lambda path: full)


def test_guest_that_fills_the_host_is_paused_and_its_sibling_is_not(world, monkeypatch):
    writer, sibling = running(world), running(world, "sibling")
    housekeeper, fills = Housekeeper(world.services), world.services.host.storages.named("fake").fills
    housekeeper.guard()
    nearly_full(monkeypatch)
    fills[writer.id], fills[sibling.id] = Fill(1 << 30, 1 << 40), Fill(1 << 12, 1 << 40)
    housekeeper.guard()
    eventually(lambda: world.vm("web").state is VmState.PAUSED, what="the writer stands still")
    housekeeper.guard()
    world.do(ReconcileHost())
    assert world.vm("sibling").state is VmState.RUNNING
    assert "free on the host's disk, and it has just taken 1.0 GiB" in world.vm("web").reason
    monkeypatch.undo()
    housekeeper.guard()
    eventually(lambda: world.vm("web").state is VmState.RUNNING, what="it goes on")


def test_guest_that_fills_its_home_disk_is_found_too(tmp_path, monkeypatch):
    (tmp_path / "objects").mkdir()
    disks = FakeCapability("disk", tmp_path / "objects")
    world = World(tmp_path / "home", FakeVmm(), capabilities=(disks,))
    writer, _ = running(world), running(world, "sibling")
    housekeeper = Housekeeper(world.services)
    housekeeper.guard()
    nearly_full(monkeypatch)
    disks.used[writer.id] = 1 << 30
    housekeeper.guard()
    eventually(lambda: world.vm("web").state is VmState.PAUSED, what="the writer stands still")
    assert world.vm("sibling").state is VmState.RUNNING
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    world.stop()


@pytest.mark.parametrize("who", ["driver", "storage", "unknown driver"])
def test_vm_that_would_lose_what_it_writes_is_paused_on_a_full_host_though_it_writes_nothing(world, monkeypatch, who):
    vm = running(world)
    if who == "unknown driver":
        world.store.vms.update(replace(world.vm("web"), vmm="newer"))
    elif who == "driver":
        world.vmm.holds_writes = False
    else:
        world.services.host.storages.named("fake").is_lost_when_host_is_full = True
    nearly_full(monkeypatch)
    (watched,) = [Housekeeper(world.services)._watched(world.vm("web"))]
    assert watched.is_fragile
    if who != "unknown driver":
        Housekeeper(world.services).guard()
        eventually(lambda: world.vm("web").state is VmState.PAUSED, what="it stands still")
    else:
        world.store.vms.update(replace(world.vm("web"), vmm="fake"))
    assert world.do(ResumeVm(vm.id, vm.name)).state is VmState.RUNNING


def test_restart_of_the_daemon_counts_as_a_use(world):
    running(world, idle_s=600.0)
    with freeze_time(clock.now() + timedelta(hours=1)):
        housekeeper = Housekeeper(world.services)
        housekeeper.look()
    world.do(ReconcileHost())
    assert world.vm("web").state is VmState.RUNNING


def test_vm_that_its_user_pauses_too_does_not_go_on_when_there_is_room(world):
    vm = running(world)
    world.do(PauseVm(vm.id, vm.name, "guard", "no room"))
    world.do(PauseVm(vm.id, vm.name))
    assert world.vm("web").paused_by == "user"
    Housekeeper(world.services).guard()
    world.do(ResumeVm(vm.id, vm.name, "guard"))  # wished before the user came
    assert world.vm("web").state is VmState.PAUSED
    assert world.do(ResumeVm(vm.id, vm.name)).state is VmState.RUNNING


def test_guard_leaves_alone_what_it_once_paused_and_what_does_not_run_any_more(world, monkeypatch):
    vm = running(world)
    world.do(KillVm(vm.id, vm.name))
    world.store.vms.update(replace(world.vm("web"), state=VmState.FAILED, paused_by="guard"))
    monkeypatch.setattr(
        "banger.actors.housekeeping.decide", lambda free, watched, thresholds: watched and pytest.fail("watched")
    )
    Housekeeper(world.services).guard()


def test_vm_whose_start_did_not_end_is_not_running_because_somebody_resumes_it(world):
    vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine")))
    world.store.vms.update(replace(vm, state=VmState.STARTING))
    with pytest.raises(BangerError, match="not paused"):
        world.do(ResumeVm(vm.id, vm.name))
    world.reconcile(vm)
