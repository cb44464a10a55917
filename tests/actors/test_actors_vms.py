"""Owners of VMs: up, down, exits, restarts. The VMM processes are real; only the machines in them are not."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from banger.actors.messages import (
    CreateVm,
    DeleteImage,
    DeleteVm,
    KillVm,
    ReconcileHost,
    StartVm,
    StopVm,
)
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, ProcessIdentity, VmState
from banger.core.names import new_id
from banger.core.wire.port_forward import PortForward
from banger.core.wire.vm_spec import VmSpec
from banger.vmm import identity as processes
from tests.support.fake_vmm import Fault
from tests.support.owned_vms import create, process_of
from tests.support.waiting import eventually


@pytest.fixture
def world(vm_world):
    return vm_world


def failure_of(call) -> BangerError:
    with pytest.raises(BangerError) as caught:
        call()
    return caught.value


# -- up --------------------------------------------------------------------------------------------------


def test_vm_create_brings_image_and_kernel_and_leaves_it_stopped(world):
    vm = create(world)

    assert vm.state is VmState.STOPPED
    assert world.store.images.get(vm.image_id).name == "alpine"
    assert world.store.kernels.get(vm.kernel_id).name == "default"
    assert world.ledger.of(vm.id).of() == []


def test_vm_whose_made_up_name_was_taken_meanwhile_gets_another(world):
    create(world, "calm-otter")
    one = world.do(CreateVm(new_id(), "calm-otter", VmSpec("alpine"), start=True, is_name_made_up=True))

    assert one.state is VmState.RUNNING
    assert one.name != "calm-otter"
    assert {vm.name for vm in world.store.vms.all()} == {"calm-otter", one.name}
    wanted = CreateVm(new_id(), "calm-otter", VmSpec("alpine"))
    assert failure_of(lambda: world.do(wanted)).kind is ErrorKind.ALREADY_EXISTS


def test_vm_creates_at_once_pull_a_missing_image_once(world):
    waiters = [world.supervisor.submit(CreateVm(new_id(), f"vm-{n}", VmSpec("alpine"))) for n in range(8)]

    assert len({waiter.wait().image_id for waiter in waiters}) == 1
    assert world.images.builds == ["alpine"]
    assert world.kernels.builds == ["default"]


def test_vm_start_runs_a_process_that_is_written_down(world):
    vm = create(world, start=True, ports=(PortForward(80),))

    identity = process_of(world, vm)
    assert vm.state is VmState.RUNNING
    assert vm.pid == identity.pid
    assert processes.is_same(identity)
    assert vm.ports[0].guest_port == 80
    assert vm.ports[0].host_port > 0
    assert {step.name for step in vm.timings} >= {"create disk", "start VMM", "boot guest", "connect"}
    assert world.watcher.watched == {vm.id: identity}


def test_vm_handle_is_on_disk_before_the_process_exists(world, vmm):
    """Disk ahead of memory: what ``launch`` sees when it is called is already in the ledger."""
    seen = {}
    original = vmm.launch

    def launch(config, on_spawn, token=None):
        seen["intended"] = [(h.kind, h.state) for h in world.ledger.of(config.vm_id).of() if h.kind == "process"]
        return original(config, on_spawn, token)

    vmm.launch = launch
    create(world, start=True)

    assert seen["intended"] == [("process", "intended")]


def test_vm_whose_process_runs_in_a_unit_writes_that_down_first_and_takes_it_down_last(world, vmm, tmp_path):
    vmm.units = tmp_path / "units"
    original, seen = vmm.launch, []

    def launch(config, on_spawn, token=None):
        seen.extend((h.kind, h.key, h.state) for h in world.ledger.of(config.vm_id).of("unit"))
        return original(config, on_spawn, token)

    vmm.launch = launch
    vm = create(world, start=True)
    assert seen == [("unit", vm.id, "intended")]
    assert [one.key for one in vmm.host_objects()] == [vm.id]
    world.do(KillVm(vm.id, vm.name))
    assert vmm.host_objects() == []
    assert world.ledger.of(vm.id).of() == []


def test_vm_whose_unit_does_not_go_keeps_it_in_the_ledger_for_the_next_reconcile(world, vmm, tmp_path):
    vmm.units = tmp_path / "units"
    vm = create(world, start=True)
    vmm.release_error = OSError("it does not go")
    with pytest.raises(BangerError, match="not cleaned up completely"):
        world.do(KillVm(vm.id, vm.name))
    assert [(h.kind, h.key) for h in world.ledger.of(vm.id).of()] == [("unit", vm.id)]
    vmm.release_error = None
    world.do(ReconcileHost())
    assert world.ledger.of(vm.id).of() == []


def test_vm_start_of_a_running_one_is_left_alone(world):
    vm = create(world, start=True)

    assert world.do(StartVm(vm.id, vm.name)).pid == vm.pid


def test_vm_name_taken_is_refused_and_the_first_one_untouched(world):
    first = create(world)

    assert failure_of(lambda: create(world)).kind is ErrorKind.ALREADY_EXISTS
    assert [vm.id for vm in world.store.vms.all()] == [first.id]


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DIES])
def test_vm_run_whose_start_fails_leaves_nothing(world, vmm, fault):
    vmm.faults["web"] = fault

    failure_of(lambda: create(world, start=True))

    assert world.store.vms.all() == []
    assert world.store.handles.all() == []
    assert world.leftovers() == []


def test_vm_start_that_fails_keeps_the_vm_with_the_reason_and_can_be_tried_again(world, vmm):
    vm = create(world)
    vmm.faults["web"] = Fault.DIES

    failure_of(lambda: world.do(StartVm(vm.id, vm.name)))

    failed = world.vm("web")
    assert failed.state is VmState.STOPPED
    assert "died" in failed.reason
    assert world.ledger.of(vm.id).of() == []
    assert world.do(StartVm(vm.id, vm.name)).state is VmState.RUNNING


def test_vm_whose_guest_says_why_it_cannot_boot_fails_with_its_words(world, vmm):
    vmm.console = "banger: init 0.1\nbanger: failed: no root drive\n"

    error = failure_of(lambda: create(world, start=True))

    assert "no root drive" in error.message
    assert world.store.vms.all() == []


def test_vm_that_does_not_let_us_in_is_undone(world):
    world.guests.refusal = BangerError(ErrorKind.TIMEOUT, "no answer")

    failure_of(lambda: create(world, start=True))

    assert world.store.vms.all() == []
    assert world.leftovers() == []


@pytest.mark.parametrize("how", ["panic", "end", "leave"])
def test_guest_that_fails_between_ready_and_its_answer_ends_the_start_at_once(world, vmm, how):
    world.guests.silent = True
    vm = create(world)
    waiter = world.supervisor.submit(StartVm(vm.id, vm.name))
    eventually(lambda: "boot-watch" in {thread.name for thread in threading.enumerate()}, what="it connects")
    if how == "panic":
        with (world.layout.vm_dir(vm.id) / "console.log").open("a") as console:
            console.write("[    1.0] Kernel panic - not syncing: Attempted to kill init!\n")
    elif how == "end":
        (handle,) = world.ledger.of(vm.id).of("process")
        os.kill(handle.detail["pid"], signal.SIGKILL)
    else:
        waiter.leave()

    eventually(lambda: not world.operations.active(), timeout_s=10, what="the start ends, long before its time-out")
    stopped = world.vm("web")
    assert stopped.state is VmState.STOPPED
    if how == "panic":
        assert "Attempted to kill init" in stopped.reason
    assert world.ledger.of(vm.id).of() == []
    assert "boot-watch" not in {thread.name for thread in threading.enumerate()}


def test_vm_create_whose_caller_leaves_while_the_image_is_pulled_is_undone(world):
    world.images.gate.close()
    waiter = world.supervisor.submit(CreateVm(new_id(), "web", VmSpec("alpine"), start=True))
    world.images.gate.wait_reached()

    waiter.leave()

    eventually(lambda: not world.operations.active(), what="create and pull end")
    assert world.store.vms.all() == []
    assert world.store.images.all() == []
    assert world.leftovers() == []


def test_vm_start_whose_caller_leaves_while_it_boots_kills_the_machine(world, vmm):
    vmm.console = "banger: init 0.1\n"
    vm = create(world)
    waiter = world.supervisor.submit(StartVm(vm.id, vm.name))
    handle = eventually(lambda: [h for h in world.ledger.of(vm.id).of("process") if h.detail], what="it is up")[0]

    waiter.leave()

    eventually(lambda: not world.operations.active(), what="the start ends")
    assert not processes.is_same(ProcessIdentity(**handle.detail))
    assert world.vm("web").state is VmState.STOPPED


def test_vm_memory_beyond_the_host_is_refused_before_anything_is_pulled(world):
    error = failure_of(lambda: create(world, memory_mib=1 << 30))

    assert error.kind is ErrorKind.EXHAUSTED
    assert world.images.builds == []
    assert world.store.vms.all() == []


def test_vm_with_an_impossible_home_is_refused_before_anything_is_made(world):
    with pytest.raises(BangerError) as caught:
        world.do(CreateVm(new_id(), "web", VmSpec("alpine", home="../x"), start=False))
    assert caught.value.kind is ErrorKind.USAGE
    assert world.store.vms.all() == []
    assert world.images.builds == []


def test_vm_port_of_another_vm_is_refused_by_name(world):
    first = create(world, "first", start=True, ports=(PortForward(80),))

    error = failure_of(lambda: create(world, "second", start=True, ports=(PortForward(80, first.ports[0].host_port),)))

    assert error.kind is ErrorKind.CONFLICT
    assert "first" in f"{error.cause} {error.hint} {error.message}"
    assert [vm.name for vm in world.store.vms.all()] == ["first"]


# -- down ------------------------------------------------------------------------------------------------


def test_vm_stop_asks_the_guest_and_cleans_up(world):
    vm = create(world, start=True)
    identity = process_of(world, vm)

    stopped = world.do(StopVm(vm.id, vm.name, 5.0))

    assert world.guests.asked_to_power_off == [vm.name]
    assert (stopped.state, stopped.exit_reason) == (VmState.STOPPED, ExitReason.REQUESTED)
    assert not processes.is_same(identity)
    assert world.ledger.of(vm.id).of() == []
    assert not world.layout.vm_run_dir(vm.id).exists()
    assert world.watcher.watched == {}


def test_vm_stop_of_a_deaf_guest_kills_it_after_its_grace(world, vmm):
    vmm.deaf.add("web")
    vm = create(world, start=True)
    identity = process_of(world, vm)

    assert world.do(StopVm(vm.id, vm.name, 0.1)).state is VmState.STOPPED
    assert not processes.is_same(identity)


def test_vm_that_says_how_long_its_guest_may_take_is_stopped_within_that(world, vmm):
    vmm.deaf.add("web")
    vm = create(world, start=True, stop_timeout_s=0.1)
    began = time.monotonic()

    assert world.do(StopVm(vm.id, vm.name)).state is VmState.STOPPED
    assert time.monotonic() - began < 10, "the setting has 20 s"


def test_vm_stop_and_kill_of_a_stopped_one_succeed(world):
    vm = create(world)

    assert world.do(StopVm(vm.id, vm.name)).state is VmState.STOPPED
    assert world.do(KillVm(vm.id, vm.name)).state is VmState.STOPPED


def test_vm_delete_of_a_running_one_needs_force(world):
    vm = create(world, start=True)
    identity = process_of(world, vm)

    assert failure_of(lambda: world.do(DeleteVm(vm.id, vm.name))).kind is ErrorKind.CONFLICT
    assert processes.is_same(identity)
    world.do(DeleteVm(vm.id, vm.name, force=True))

    assert not processes.is_same(identity)
    assert world.store.vms.all() == []


def test_vm_cleanup_goes_on_when_a_step_fails_and_reports_it(world, monkeypatch):
    vm = create(world, start=True)
    identity = process_of(world, vm)
    monkeypatch.setattr(world.guests, "disconnect", lambda vm_id: (_ for _ in ()).throw(OSError("stuck channel")))

    error = failure_of(lambda: world.do(KillVm(vm.id, vm.name)))

    assert "stuck channel" in error.cause
    assert not processes.is_same(identity)
    assert not world.layout.vm_run_dir(vm.id).exists()
    assert world.vm("web").state is VmState.FAILED
    monkeypatch.undo()


def test_vm_image_in_use_is_not_deleted_and_a_deleted_one_is_pulled_again(world):
    vm = create(world)
    image = world.store.images.get(vm.image_id)
    assert failure_of(lambda: world.do(DeleteImage("alpine", image.id))).kind is ErrorKind.CONFLICT

    world.do(DeleteVm(vm.id, vm.name))
    world.do(DeleteImage("alpine", image.id))

    assert create(world).state is VmState.STOPPED
