"""What a VM's owner does with VMM drivers: which one starts it, what it cannot give, and what is unknown later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banger.actors.messages import CreateVm, DeleteVm, PauseVm, ReconcileHost, StartVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.core.names import new_id
from banger.core.ports import Drive, TapNic
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.owned_vms import create, process_of


def test_vm_remembers_the_driver_that_runs_it(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    assert vm.vmm == "fake"
    vm_world.restart()
    assert vm_world.vm("web").vmm == "fake"


def test_device_that_the_driver_does_not_have_is_told_before_anything_is_made(vm_world: World, vmm: FakeVmm) -> None:
    vmm.devices = (Drive, TapNic)
    with pytest.raises(BangerError, match='VM "web" cannot run here') as caught:
        create(vm_world, start=True, network="slirp", egress="open")
    assert caught.value.kind is ErrorKind.USAGE
    assert '"fake" cannot give it a network card on its own user-mode stack' in caught.value.cause
    assert (vm_world.images.builds, vm_world.store.vms.all(), vmm.launched) == ([], [], [])


def test_start_on_a_driver_without_its_devices_leaves_the_vm_stopped(vm_world: World, vmm: FakeVmm) -> None:
    vm = create(vm_world, network="slirp", egress="open")
    vmm.devices = (Drive, TapNic)
    with pytest.raises(BangerError, match="cannot run here"):
        vm_world.do(StartVm(vm.id, vm.name))
    assert vm_world.vm("web").state is VmState.STOPPED
    assert vm_world.ledger.of(vm.id).of() == []


def test_machine_that_no_driver_has_is_told_before_anything_is_made(vm_world: World) -> None:
    with pytest.raises(BangerError, match="pdp11"):
        create(vm_world, machine="pdp11")
    assert (vm_world.images.builds, vm_world.store.vms.all()) == ([], [])


def test_network_that_nobody_makes_is_told_before_anything_is_made(vm_world: World) -> None:
    with pytest.raises(BangerError, match='no network "tap"'):
        vm_world.do(CreateVm(new_id(), "web", VmSpec("alpine", network="tap"), start=True))
    assert (vm_world.images.builds, vm_world.store.vms.all()) == ([], [])


def test_vm_of_a_driver_that_is_not_there_any_more_is_adopted_and_deleted(vm_world: World, vmm: FakeVmm) -> None:
    """An older banger may be started over VMs of a newer one: they go on, what it cannot do it says."""
    vm = create(vm_world, start=True)
    process = process_of(vm_world, vm)
    vm_world.store.vms.update(replace(vm, vmm="newer"))
    vm_world.restart()
    report = vm_world.do(ReconcileHost(at_start=True))
    assert (report.adopted, report.failed) == (["web"], [])
    with pytest.raises(BangerError, match='there is no VMM driver "newer"') as caught:
        vm_world.do(PauseVm(vm.id, vm.name))
    assert caught.value.hint == "choose from fake"
    assert vm_world.vm("web").state is VmState.RUNNING
    vm_world.do(DeleteVm(vm.id, vm.name, force=True))
    assert not vmm.is_alive(process)


def test_vm_of_a_driver_that_is_not_there_any_more_is_recorded_as_ended_when_it_ends(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    vm_world.vmm.kill(process_of(vm_world, vm))
    vm_world.store.vms.update(replace(vm, vmm="newer"))
    after = vm_world.reconcile(vm)
    assert after is not None
    assert (after.state, "newer" in after.reason) == (VmState.STOPPED, True)
