"""What comes between a snapshot and those who take, use and delete it: each forced at a named instant."""

from __future__ import annotations

import threading

import pytest

from banger.actors.messages import DeleteImage, DeleteSnapshot, DeleteVm, KillVm, ReconcileHost, StopVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from tests.support.fake_vmm import Fault
from tests.support.interleaving import Interleaving
from tests.support.owned_vms import create
from tests.support.saved_vms import copied_guests, delete_snapshot, fork, forking, read, restore, snapshot, write
from tests.support.waiting import eventually


@pytest.fixture
def world(vm_world):
    copied_guests(vm_world)
    yield vm_world
    for vm in vm_world.store.vms.all():
        vm_world.do(DeleteVm(vm.id, vm.name, force=True))
    for taken in vm_world.store.snapshots.all():
        delete_snapshot(vm_world, taken)


@pytest.fixture
def points(world, monkeypatch):
    return Interleaving(monkeypatch)


@pytest.fixture
def vm(world):
    vm = create(world, start=True)
    write(world, vm, "first")
    return vm


def outcome(world, command):
    try:
        return world.do(command)
    except BangerError as error:
        return error


@pytest.mark.parametrize("point", ["vm.create:name-claimed", "vm.create:artifacts-here", "vm.create:disk-made",
                                   "vm.start:process-intended", "vm.restore:machine-loaded"])  # fmt: skip
def test_snapshot_is_not_deleted_while_a_vm_is_made_from_it(world, points, vm, point):
    taken, outcomes = snapshot(world, vm), []

    def delete():
        outcomes.append(outcome(world, DeleteSnapshot(taken.name, taken.id)))

    if point == "vm.create:name-claimed":  # the snapshot is not held yet, and the delete wins
        points.at(point, delete)
        with pytest.raises(BangerError) as caught:
            restore(world, taken, "again")
        assert caught.value.kind is ErrorKind.NOT_FOUND
        assert world.store.vms.by_name("again") is None
        return
    points.at(point, delete)
    assert read(world, restore(world, taken, "again")) == ("first", "first")
    assert outcomes[0].kind is ErrorKind.CONFLICT
    delete_snapshot(world, taken)


def test_reconcile_spares_what_is_being_saved_and_forked(world, points, vm, monkeypatch):
    monkeypatch.setattr("banger.actors.host_reconcile.GRACE_S", 0.0)
    reports = []
    for point in ("snapshot.create:staging-made", "snapshot.create:saved", "artifact.publish:renamed",
                  "vm.fork:saved", "vm.fork:made"):  # fmt: skip
        points.at(point, lambda: reports.append(world.do(ReconcileHost())))
    snapshot(world, vm)
    fork(world, vm, "one", "two")

    assert len(reports) == 5
    assert all((one.removed, one.stopped, one.failed) == ([], [], []) for one in reports), reports


def test_image_deleted_while_a_snapshot_of_its_vm_is_published_stays(world, points, vm):
    image, outcomes = world.store.images.get(vm.image_id), []

    def delete():
        world.do(DeleteVm(vm.id, "web", force=True))
        outcomes.append(outcome(world, DeleteImage(image.name, image.id)))

    points.at("artifact.publish:row-written", delete)
    taken = snapshot(world, vm)

    assert outcomes[0].kind is ErrorKind.CONFLICT
    assert read(world, restore(world, taken, "again")) == ("first", "first")


def test_image_deleted_before_the_snapshot_has_its_row_fails_the_snapshot_which_leaves_nothing(world, points, vm):
    image = world.store.images.get(vm.image_id)

    def delete():
        world.do(DeleteVm(vm.id, "web", force=True))
        world.do(DeleteImage(image.name, image.id))

    points.at("artifact.publish:renamed", delete)
    with pytest.raises(BangerError) as caught:
        snapshot(world, vm)

    assert (caught.value.kind, caught.value.hint) == (ErrorKind.CONFLICT, "try again")
    assert world.store.snapshots.all() == []
    assert world.leftovers() == []


def test_kill_does_not_wait_for_a_save(world, vm):
    saving, go_on = threading.Event(), threading.Event()

    def wait():
        saving.set()
        assert go_on.wait(10.0)

    world.vmm.while_saving = wait
    taking = threading.Thread(target=lambda: outcomes.append(outcome_of_snapshot(world, vm)))
    outcomes = []
    taking.start()
    assert saving.wait(10.0)
    killing = world.supervisor.submit(KillVm(vm.id, "web"))
    eventually(lambda: killing.operation, what="the kill has overtaken")
    go_on.set()
    assert killing.wait().state is VmState.STOPPED
    taking.join()

    assert outcomes[0].kind is ErrorKind.CANCELLED
    assert world.store.snapshots.all() == []
    assert world.leftovers() == []


def outcome_of_snapshot(world, vm):
    try:
        return snapshot(world, vm)
    except BangerError as error:
        return error


def test_vm_that_is_stopped_before_its_turn_is_saved_as_a_stopped_one(world, points, vm):
    points.at("snapshot.create:staging-made", lambda: world.do(StopVm(vm.id, "web")))
    assert snapshot(world, vm).memory_mib == 0


def test_vm_that_is_deleted_before_its_turn_is_told_and_leaves_nothing(world, points, vm):
    points.at("snapshot.create:staging-made", lambda: world.do(DeleteVm(vm.id, "web", force=True)))
    with pytest.raises(BangerError) as caught:
        snapshot(world, vm)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert world.leftovers() == []


def test_two_snapshots_of_one_name_at_once_have_one_winner(world, points, vm):
    losers = []

    def take():
        losers.append(threading.Thread(target=lambda: outcomes.append(outcome_of_snapshot(world, vm))))
        losers[0].start()

    outcomes = []
    points.at("snapshot.create:staging-made", take)
    snapshot(world, vm)
    losers[0].join()
    assert outcomes[0].kind is ErrorKind.ALREADY_EXISTS
    assert len(world.store.snapshots.all()) == 1


def test_two_forks_of_one_vm_at_once_both_succeed(world, vm):
    waiters = [world.supervisor.submit(forking(vm, f"{one}-1", f"{one}-2")) for one in ("a", "b")]
    names = {forked.name for waiter in waiters for forked in waiter.wait()}
    assert names == {"a-1", "a-2", "b-1", "b-2"}
    assert not any(forked.attended for forked in world.store.vms.all())


def test_fork_that_fails_while_another_is_ready_takes_that_back(world, points, vm):
    world.vmm.faults["two"] = Fault.DIES
    with pytest.raises(BangerError):
        fork(world, vm, "one", "two")
    assert [one.name for one in world.store.vms.all()] == ["web"]
    assert not world.attendance.all()


def test_snapshot_whose_row_was_lost_is_taken_in_again_and_can_be_used(world, vm):
    taken = snapshot(world, vm)
    world.store.database.execute("DELETE FROM snapshots")
    assert world.do(ReconcileHost(dry_run=True)).recovered == ["snapshot snap"]
    assert world.store.snapshots.all() == []

    assert world.do(ReconcileHost(at_start=True)).recovered == ["snapshot snap"]

    assert world.store.snapshots.all() == [taken]
    assert read(world, restore(world, taken, "again")) == ("first", "first")
    assert world.do(ReconcileHost()).recovered == []


def test_lost_snapshot_whose_name_is_another_ones_now_keeps_both(world, vm):
    lost = snapshot(world, vm)
    world.store.database.execute("DELETE FROM snapshots")
    snapshot(world, vm)
    world.do(ReconcileHost(at_start=True))
    assert {one.name for one in world.store.snapshots.all()} == {"snap", f"snap-{lost.id[:4]}"}


@pytest.mark.parametrize("point", ["snapshot.delete:record-gone", "artifact.remove:row-gone"])
def test_snapshot_that_is_being_deleted_is_not_taken_in_again(world, points, vm, point):
    reports = []
    points.at(point, lambda: reports.append(world.do(ReconcileHost())))
    delete_snapshot(world, snapshot(world, vm))
    assert reports[0].recovered == []
    assert world.store.snapshots.all() == []


def test_snapshot_that_is_being_published_is_not_taken_for_a_lost_one(world, points, vm):
    reports = []
    points.at("artifact.publish:renamed", lambda: reports.append(world.do(ReconcileHost())))
    taken = snapshot(world, vm)
    assert reports[0].recovered == []
    assert world.store.snapshots.all() == [taken]
