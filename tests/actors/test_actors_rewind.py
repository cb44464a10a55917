"""Rewinding over fake machines: what a VM gets back, what it keeps, and what it has if that fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banger.actors.messages import DeleteVm, GrowVm, KillVm, PauseVm, RewindVm, StartVm, StopVm, SuspendVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.core.wire.port_forward import PortForward
from tests.support.copied_guest import SAVED, CopiedGuest
from tests.support.fake_vmm import Fault
from tests.support.owned_vms import create, process_of
from tests.support.saved_vms import (
    copied_guests,
    delete_snapshot,
    disk_of,
    read,
    restore,
    rewind,
    snapshot,
    write,
)


@pytest.fixture
def world(vm_world):
    vm_world.copies = copied_guests(vm_world)
    yield vm_world
    for vm in vm_world.store.vms.all():
        vm_world.do(DeleteVm(vm.id, vm.name, force=True))
    for taken in vm_world.store.snapshots.all():
        delete_snapshot(vm_world, taken)


@pytest.fixture
def vm(world):
    """A running VM with something in its memory and on its disk."""
    vm = create(world, start=True, ports=(PortForward(80),), labels={"a": "b"})
    write(world, vm, "first")
    return vm


def refused(world, vm, taken=None):
    """The error of a rewind that is refused before anything is touched."""
    before = world.store.vms.get(vm.id), process_of(world, vm), read(world, vm)
    with pytest.raises(BangerError) as caught:
        rewind(world, vm, taken)
    assert (world.store.vms.get(vm.id), process_of(world, vm), read(world, vm)) == before
    check_nothing_left(world, vm)
    return caught.value


def failed(world, vm, taken=None):
    """The error of a rewind that fails once the VM is down."""
    with pytest.raises(BangerError) as caught:
        rewind(world, vm, taken)
    check_nothing_left(world, vm)
    return caught.value


def check_nothing_left(world, vm):
    assert world.leftovers() == []
    assert world.store.leases.held() == set()
    assert world.ledger.of(vm.id).of("kept_disk") == []
    assert list(world.layout.vm_dir(vm.id).glob("kept-disk*")) == []


def test_memory_and_disk_are_those_of_the_snapshot_and_all_else_is_the_vms(world, vm):
    taken = snapshot(world, vm)
    write(world, vm, "later")
    before = process_of(world, vm)

    rewound = rewind(world, vm, taken)

    assert read(world, vm) == ("first", "first")
    assert process_of(world, vm) != before
    kept = ("id", "name", "spec", "created_at", "address", "ports", "image_id", "kernel_id", "storage")
    assert {name: getattr(rewound, name) for name in kept} == {name: getattr(vm, name) for name in kept}
    assert (rewound.state, rewound.origin_snapshot, rewound.forked_from) == (VmState.RUNNING, taken.id, "")
    assert world.watcher.watched[vm.id] == process_of(world, vm)
    check_nothing_left(world, vm)


def test_guest_stays_who_it_is_and_what_must_not_repeat_is_renewed(world, vm):
    snapshot(world, vm)
    rewind(world, vm)

    guest = world.copies[vm.id]
    kept = ("hostname", "machine_id", "vm_id", "host_key", "sshd_keys")
    assert [getattr(guest.now, name) for name in kept] == [getattr(SAVED, name) for name in kept]
    assert guest.now.boot_id != SAVED.boot_id
    assert guest.now.seeds == {}
    assert {"random numbers", "clock", "hooks"} <= set(guest.asked)
    assert {"give up old disk", "verify identity"} <= {step.name for step in world.vm("web").timings}


def test_rewinds_as_often_as_wanted_and_by_default_to_the_newest(world, vm):
    first = snapshot(world, vm, "first")
    write(world, vm, "second")
    snapshot(world, vm, "second")
    for text in ("third", "fourth"):
        write(world, vm, text)
        rewind(world, vm)
        assert read(world, vm) == ("second", "second")
    rewind(world, vm, first)
    assert read(world, vm) == ("first", "first")
    assert snapshot(world, vm, "third").parent_id == first.id


def test_stopped_vm_goes_on_from_the_memory_of_its_snapshot(world, vm):
    snapshot(world, vm)
    write(world, vm, "later")
    world.do(StopVm(vm.id, "web"))
    assert rewind(world, vm).state is VmState.RUNNING
    assert read(world, vm) == ("first", "first")


def test_paused_vm_runs_afterwards(world, vm):
    snapshot(world, vm)
    world.do(PauseVm(vm.id, "web"))
    rewound = rewind(world, vm)
    assert (rewound.state, rewound.paused_by) == (VmState.RUNNING, "")


@pytest.mark.parametrize("comes_up", [True, False])
def test_what_a_rewound_vm_was_suspended_to_is_given_up(world, vm, comes_up):
    snapshot(world, vm)
    write(world, vm, "later")
    world.do(SuspendVm(vm.id, "web"))
    if comes_up:
        assert rewind(world, vm).state is VmState.RUNNING
        assert read(world, vm) == ("first", "first")
    else:
        world.vmm.faults["web"] = Fault.DIES
        failed(world, vm)
        assert (world.vm("web").state, disk_of(world, vm).read_text()) == (VmState.STOPPED, "later")
    assert not world.layout.suspended_dir(vm.id).exists()


@pytest.mark.parametrize("runs", [False, True])
def test_snapshot_of_a_stopped_vm_gives_the_disk_back_and_the_vm_runs_if_it_ran(world, vm, runs):
    world.do(StopVm(vm.id, "web"))
    snapshot(world, vm)
    disk_of(world, vm).write_text("later")
    if runs:
        world.do(StartVm(vm.id, "web"))
    launched = len(world.vmm.launched)

    rewound = rewind(world, vm)

    assert rewound.state is (VmState.RUNNING if runs else VmState.STOPPED)
    assert [config.saved for config in world.vmm.launched[launched:]] == [None] * runs
    assert disk_of(world, vm).read_text() == "first"
    check_nothing_left(world, vm)


def test_failed_vm_is_rewound_once_it_is_cleaned_up(world, vm):
    snapshot(world, vm)
    write(world, vm, "later")
    world.vmm.units = world.layout.data.parent / "units"
    world.ledger.of(vm.id).intend("unit", vm.id)
    world.vmm.release_error = OSError("busy")
    with pytest.raises(BangerError):
        world.do(KillVm(vm.id, "web"))
    assert world.vm("web").state is VmState.FAILED
    assert failed(world, vm).message == 'VM "web" was not cleaned up completely'
    assert disk_of(world, vm).read_text() == "later"

    world.vmm.release_error = None
    rewind(world, vm)
    assert read(world, vm) == ("first", "first")


def test_disk_that_has_grown_since_is_as_large_as_it_was(world, vm):
    snapshot(world, vm)
    world.do(StopVm(vm.id, "web"))
    world.do(GrowVm(vm.id, "web", vm.spec.disk_mib * 2))
    assert rewind(world, vm).spec.disk_mib == vm.spec.disk_mib
    assert world.vm("web").spec.disk_mib == vm.spec.disk_mib


def test_sessions_in_it_are_told_why_they_end(world, vm):
    snapshot(world, vm)
    rewind(world, vm)
    assert world.guests.left[vm.id] == "the VM was rewound"


# -- refused ---------------------------------------------------------------------------------------------


def test_snapshot_of_another_vm_is_refused_with_what_helps(world, vm):
    other = restore(world, snapshot(world, vm), "other")
    error = refused(world, vm, snapshot(world, other, "of-other"))
    assert (error.kind, error.message) == (ErrorKind.CONFLICT, 'snapshot "of-other" is not one of VM "web"')
    assert "banger vm restore of-other" in error.hint


def test_vm_without_a_snapshot_is_refused(world, vm):
    error = refused(world, vm)
    assert (error.kind, error.hint) == (ErrorKind.NOT_FOUND, "banger vm snapshot create web")


def test_snapshot_that_is_gone_is_refused(world, vm):
    taken = snapshot(world, vm)
    delete_snapshot(world, taken)
    assert refused(world, vm, taken).kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize("part", ["disk", "machine/memory"])
def test_snapshot_that_is_not_whole_is_refused_by_what_is_missing(world, vm, part):
    taken = snapshot(world, vm)
    path = world.layout.snapshot_dir(taken.id) / part
    path.rename(path.with_name("gone"))
    error = refused(world, vm)
    assert error.kind is ErrorKind.INVALID
    assert str(path) in error.cause


def test_other_version_of_the_vmm_is_refused_before_the_vm_is_ended(world, vm, monkeypatch):
    snapshot(world, vm)
    monkeypatch.setattr(type(world.vmm), "version", lambda _: "9.9.9")
    error = refused(world, vm)
    assert error.kind is ErrorKind.UNAVAILABLE
    assert "9.9.9" in error.cause


def test_vm_that_a_session_holds_is_refused(world, vm):
    snapshot(world, vm)
    world.store.vms.update(replace(vm, attended=True))
    assert "the session that holds it" in refused(world, vm).cause


def test_disk_without_room_is_told_before_the_vm_is_ended(world, vm, monkeypatch):
    snapshot(world, vm)

    def full(*_):
        raise BangerError(ErrorKind.EXHAUSTED, "the disk is full")

    monkeypatch.setattr(type(world.services.host.storages.named("fake")), "fork", full)
    assert refused(world, vm).kind is ErrorKind.EXHAUSTED


# -- failed ----------------------------------------------------------------------------------------------


def test_machine_that_does_not_come_up_leaves_the_vm_stopped_with_the_disk_that_it_had(world, vm):
    snapshot(world, vm)
    write(world, vm, "later")
    world.vmm.faults["web"] = Fault.DIES

    error = failed(world, vm)

    assert "the VM is stopped, with the disk that it had" in error.cause
    assert (world.vm("web").state, disk_of(world, vm).read_text()) == (VmState.STOPPED, "later")
    assert world.vm("web").origin_snapshot == ""
    assert world.do(StartVm(vm.id, "web")).state is VmState.RUNNING
    assert disk_of(world, vm).read_text() == "later"
    rewind(world, vm)
    assert read(world, vm) == ("first", "first")


def test_guest_that_repeats_itself_fails_the_rewind_and_the_vm_has_the_disk_that_it_had(world, vm):
    snapshot(world, vm)
    write(world, vm, "later")
    guest = CopiedGuest(ignores="boot id")
    world.guests.sessions = lambda _: guest
    assert "has not renewed its boot id" in failed(world, vm).message
    assert (world.vm("web").state, disk_of(world, vm).read_text()) == (VmState.STOPPED, "later")


def test_rewind_that_is_given_up_leaves_the_vm_stopped_with_the_disk_that_it_had(world, vm):
    snapshot(world, vm)
    write(world, vm, "later")
    world.vmm.faults["web"] = Fault.HANGS
    waiter = world.supervisor.submit(RewindVm(vm.id, "web"))
    assert world.vmm.hanging.wait(10.0)
    waiter.operation.cancel("enough")
    assert waiter.operation.wait(10.0)
    assert (world.vm("web").state, disk_of(world, vm).read_text()) == (VmState.STOPPED, "later")
    check_nothing_left(world, vm)
