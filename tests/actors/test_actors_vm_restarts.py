"""VMs that end by themselves, and daemons that begin again: what is adopted, finished, cleaned, swept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banger.actors.messages import (
    CreateVm,
    DeleteVm,
    PullImage,
    ReconcileHost,
    ReconcileVm,
    StartVm,
    StopVm,
)
from banger.core.models import ExitReason, VmState
from banger.core.names import new_id
from banger.core.ports import ImageRequest
from banger.core.wire.vm_spec import VmSpec
from banger.vmm import identity as processes
from tests.support.owned_vms import create, process_of
from tests.support.waiting import eventually


@pytest.fixture
def world(vm_world):
    return vm_world


def test_vm_that_powers_itself_off_is_recorded_as_such(world, vmm):
    vm = create(world, start=True)
    identity = process_of(world, vm)
    vmm.exit(world.layout.vm_run_dir(vm.id), 0)
    eventually(lambda: not processes.is_same(identity), what="it is gone")

    reconciled = world.do(ReconcileVm(vm.id, vm.name, exited=identity))

    assert (reconciled.state, reconciled.exit_reason) == (VmState.STOPPED, ExitReason.GUEST_POWEROFF)
    assert world.ledger.of(vm.id).of() == []


def test_vm_killed_after_an_earlier_boot_powered_off_is_not_taken_for_powered_off(world, vmm):
    vm = create(world, start=True)
    vmm.exit(world.layout.vm_run_dir(vm.id), 0)
    world.do(StopVm(vm.id, vm.name))
    world.do(StartVm(vm.id, vm.name))
    identity = process_of(world, vm)
    processes.kill(identity)
    processes.wait_gone(identity, 5)

    assert world.do(ReconcileVm(vm.id, vm.name, exited=identity)).exit_reason is ExitReason.KILLED


def test_vm_that_is_ephemeral_is_gone_after_its_own_exit(world, vmm):
    vm = create(world, start=True, ephemeral=True)
    identity = process_of(world, vm)
    processes.kill(identity)
    processes.wait_gone(identity, 5)

    world.do(ReconcileVm(vm.id, vm.name, exited=identity))

    assert world.store.vms.all() == []


def test_restart_adopts_what_lives_and_a_second_reconcile_changes_nothing(world):
    vm = create(world, start=True)
    identity = process_of(world, vm)
    world.watcher.watched.clear()

    world.restart()
    first, second = world.do(ReconcileHost(at_start=True)), world.do(ReconcileHost())

    assert first.adopted == ["web"]
    assert (second.adopted, second.stopped, second.removed, second.failed) == ([], [], [], [])
    assert world.watcher.watched == {vm.id: identity}
    assert world.vm("web").pid == identity.pid


def test_restart_marks_what_died_meanwhile(world):
    vm = create(world, start=True)
    identity = process_of(world, vm)
    world.stop()
    processes.kill(identity)
    processes.wait_gone(identity, 5)
    world.start()

    report = world.do(ReconcileHost(at_start=True))

    assert report.stopped
    assert world.vm("web").state is VmState.STOPPED
    assert world.ledger.of(vm.id).of() == []


def test_restart_after_a_host_reboot_says_so_and_touches_no_process(world):
    vm = create(world, start=True)
    identity = process_of(world, vm)
    detail = {**world.ledger.of(vm.id).of("process")[0].detail, "boot_id": "another-boot"}
    world.ledger.of(vm.id).activate("process", identity.marker, detail)

    reconciled = world.reconcile(vm)

    assert (reconciled.state, reconciled.exit_reason) == (VmState.STOPPED, ExitReason.HOST_REBOOT)
    assert processes.is_same(identity)
    processes.kill(identity)
    processes.wait_gone(identity, 5)


@pytest.mark.parametrize("state", [VmState.CREATING, VmState.DELETING])
def test_restart_removes_what_was_half_created_or_half_deleted(world, state):
    vm = create(world)
    world.store.vms.update(replace(vm, state=state))

    world.restart()
    report = world.do(ReconcileHost(at_start=True))

    assert report.removed == ["VM web"]
    assert world.store.vms.all() == []
    assert world.leftovers() == []


@pytest.mark.parametrize("state", [VmState.STARTING, VmState.STOPPING])
def test_restart_finishes_a_start_or_stop_that_nobody_waits_for(world, state):
    vm = create(world, start=True)
    identity = process_of(world, vm)
    world.store.vms.update(replace(vm, state=state))

    world.restart()
    world.do(ReconcileHost(at_start=True))

    assert world.vm("web").state is VmState.STOPPED
    assert not processes.is_same(identity)


def test_restart_finds_a_process_that_was_intended_but_never_recorded(world):
    """The daemon died between spawning the VMM and writing its identity down."""
    vm = create(world, start=True)
    identity = process_of(world, vm)
    world.ledger.of(vm.id).intend("process", identity.marker)
    world.store.vms.update(replace(vm, state=VmState.STARTING))

    world.restart()
    world.do(ReconcileHost(at_start=True))

    assert not processes.is_same(identity)
    assert world.vm("web").state is VmState.STOPPED


def test_reconcile_sweeps_orphans_at_start_and_spares_young_ones_on_a_tick(world):
    world.do(PullImage("alpine", ImageRequest("alpine")))
    orphans = [world.layout.data / place / "feedfacefeed" for place in ("images", "kernels", "vms")]
    staged = world.layout.staging / "image-left"
    for path in (*orphans, staged):
        path.mkdir()

    world.do(ReconcileHost())
    assert all(path.exists() for path in (*orphans, staged))

    world.do(ReconcileHost(at_start=True))
    assert not any(path.exists() for path in (*orphans, staged))
    assert [image.name for image in world.store.images.all()] == ["alpine"]


def test_reconcile_does_not_wait_for_a_busy_vm(world):
    world.images.gate.close()
    busy = world.supervisor.submit(CreateVm(new_id(), "slow", VmSpec("alpine")))
    world.images.gate.wait_reached()

    report = world.do(ReconcileHost())

    assert report.failed == []
    assert not busy.answered


def test_restart_collects_content_that_lost_its_name_when_its_last_vm_is_gone(world):
    vm = create(world)
    world.images.digests["alpine"] = "sha256:moved"
    world.do(PullImage("alpine", ImageRequest("alpine"), refresh=True))
    world.do(DeleteVm(vm.id, vm.name))

    world.do(ReconcileHost())

    assert world.store.images.nameless() == []
    assert world.leftovers() == []
