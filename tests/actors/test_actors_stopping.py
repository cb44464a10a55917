"""A stop that takes long can be given up, and is overtaken by who wants the machine gone at once."""

from __future__ import annotations

import pytest

from banger.actors.messages import DeleteVm, KillVm, PauseVm, ReconcileHost, StartVm, StopVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, Vm, VmState
from tests.support.fake_vmm import FakeFirecracker, FakeVmm, Fault
from tests.support.fakes import World
from tests.support.owned_vms import create, process_of
from tests.support.waiting import eventually

LONG_S = 600.0


@pytest.fixture(params=[FakeVmm, FakeFirecracker])
def vmm(request: pytest.FixtureRequest) -> FakeVmm:
    driver: FakeVmm = request.param()
    return driver


@pytest.fixture
def deaf(vm_world: World, vmm: FakeVmm) -> Vm:
    """A running VM that does not hear that it is to power off."""
    vm_world.guests.on_power_off = lambda vm: None
    vmm.deaf.add("web")
    return create(vm_world, start=True)


def stopping(world: World, vm: Vm) -> object:
    """A stop that waits for the guest."""
    waiter = world.supervisor.submit(StopVm(vm.id, vm.name, LONG_S))
    eventually(lambda: world.vm(vm.name).state is VmState.STOPPING and vm.name in world.guests.asked_to_power_off)
    return waiter


def test_stop_that_its_caller_gives_up_leaves_the_vm_running_and_watched(vm_world: World, deaf: Vm) -> None:
    waiter = stopping(vm_world, deaf)
    waiter.leave()  # type: ignore[attr-defined]
    eventually(lambda: vm_world.vm("web").state is VmState.RUNNING, what="it is left as it was")
    assert vm_world.vmm.is_alive(process_of(vm_world, deaf))
    assert deaf.id in vm_world.watcher.watched


@pytest.mark.parametrize("command", [KillVm, lambda vm_id, name: DeleteVm(vm_id, name, force=True)])
def test_kill_and_forced_delete_overtake_a_stop_whose_caller_gets_its_vm_stopped(
    vm_world: World, deaf: Vm, command: object
) -> None:
    waiter = stopping(vm_world, deaf)
    vm_world.do(command(deaf.id, deaf.name))  # type: ignore[operator]
    stopped = waiter.wait()  # type: ignore[attr-defined]
    assert (stopped.state, stopped.exit_reason) == (VmState.STOPPED, ExitReason.REQUESTED)


def test_delete_without_force_waits_its_turn(vm_world: World, deaf: Vm, vmm: FakeVmm) -> None:
    stopping(vm_world, deaf)
    waiting = vm_world.supervisor.submit(DeleteVm(deaf.id, deaf.name))
    vmm.exit(vm_world.layout.vm_run_dir(deaf.id), 0)
    assert waiting.wait() == {"id": deaf.id, "name": deaf.name}


def test_shutdown_of_the_daemon_is_not_kept_up_by_a_slow_stop(vm_world: World, deaf: Vm) -> None:
    stopping(vm_world, deaf)
    vm_world.restart()
    vm_world.do(ReconcileHost(at_start=True))
    assert vm_world.vm("web").state is VmState.RUNNING


def test_forced_delete_overtakes_a_start_that_waits_for_its_guest(vm_world: World, vmm: FakeVmm) -> None:
    vmm.console = "banger: init 0.1\n"
    vm = create(vm_world)
    starting = vm_world.supervisor.submit(StartVm(vm.id, vm.name))
    eventually(lambda: vm_world.vm("web").state is VmState.STARTING and vm_world.ledger.of(vm.id).of("console"))
    vm_world.do(DeleteVm(vm.id, vm.name, force=True))
    with pytest.raises(BangerError) as caught:
        starting.wait()
    assert caught.value.kind is ErrorKind.CANCELLED


def test_pause_that_fails_leaves_the_vm_running(vm_world: World, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = create(vm_world, start=True)

    def refuse(*_: object) -> None:
        raise BangerError(ErrorKind.UNAVAILABLE, "it does not stand still")

    monkeypatch.setattr(vmm, "pause", refuse)
    with pytest.raises(BangerError, match="stand still"):
        vm_world.do(PauseVm(vm.id, vm.name))
    assert (vm_world.vm("web").state, vm_world.vm("web").paused_by) == (VmState.RUNNING, "")


def test_paused_vm_that_cannot_be_paused_again_is_watched_all_the_same(
    vm_world: World, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = create(vm_world, start=True)
    vm_world.do(PauseVm(vm.id, vm.name))
    vm_world.restart()

    def refuse(*_: object) -> None:
        raise BangerError(ErrorKind.UNAVAILABLE, "it does not stand still")

    monkeypatch.setattr(vmm, "pause", refuse)
    vm_world.do(ReconcileHost(at_start=True))
    assert vm.id in vm_world.watcher.watched


def test_cleanup_that_fails_at_reconcile_is_an_answer_and_no_crash(
    vm_world: World, vmm: FakeVmm, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six crashes in a row, and the owner would be given up although the device is free again."""
    vm = create(vm_world, start=True, ephemeral=True)
    monkeypatch.setattr(vmm, "units", tmp_path)
    vmm.release_error = BangerError(ErrorKind.UNAVAILABLE, "the device is busy")
    vm_world.ledger.of(vm.id).intend("unit", vm.id)
    vmm.kill(process_of(vm_world, vm))
    for _ in range(8):
        vm_world.do(ReconcileHost())
    assert vm_world.vm("web").state in (VmState.FAILED, VmState.DELETING)
    vmm.release_error = None
    vm_world.do(DeleteVm(vm.id, vm.name, force=True))
    assert vm_world.store.vms.get(vm.id) is None


def test_launch_that_waits_is_given_up_with_its_caller(vm_world: World, vmm: FakeVmm) -> None:
    vmm.faults["web"] = Fault.HANGS
    vm = create(vm_world)
    starting = vm_world.supervisor.submit(StartVm(vm.id, vm.name))
    assert vmm.hanging.wait(10)
    starting.leave()
    eventually(lambda: vm_world.vm("web").state is VmState.STOPPED, what="the start is undone")
