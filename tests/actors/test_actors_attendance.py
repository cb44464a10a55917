"""VMs that a session holds are gone when it is over, also if the daemon that served it is."""

from __future__ import annotations

from banger.actors.messages import CreateVm, ReconcileHost
from banger.core.models import Vm, VmState
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from tests.support.fakes import World
from tests.support.owned_vms import create, process_of


def attended(world: World) -> Vm:
    command = CreateVm(new_id(), "held", VmSpec("alpine", ephemeral=True), start=True, attended=True)
    with world.attendance.held(command.vm_id, command.vm_name):
        vm: Vm = world.do(command)
        world.do(ReconcileHost())
        assert world.vm("held").state is VmState.RUNNING, "its session lasts"
    return vm


def test_vm_whose_session_went_with_its_daemon_is_removed_by_the_next(vm_world: World) -> None:
    vm = attended(vm_world)
    identity = process_of(vm_world, vm)
    vm_world.restart()
    vm_world.do(ReconcileHost(at_start=True))
    assert vm_world.store.vms.get(vm.id) is None
    assert not vm_world.vmm.is_alive(identity)
    assert vm_world.leftovers() == []


def test_detached_ephemeral_vm_goes_on_under_the_next_daemon(vm_world: World) -> None:
    create(vm_world, start=True, ephemeral=True)
    vm_world.restart()
    vm_world.do(ReconcileHost(at_start=True))
    assert vm_world.vm("web").state is VmState.RUNNING


def test_dry_run_tells_what_would_become_of_it(vm_world: World) -> None:
    attended(vm_world)
    report = vm_world.do(ReconcileHost(dry_run=True))
    assert report.removed == ["VM held"]
    assert report.stopped == []
    assert vm_world.vm("held").state is VmState.RUNNING
    assert vm_world.do(ReconcileHost()).removed == report.removed
