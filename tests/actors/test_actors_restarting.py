"""VMs that come back: after a reboot, as their policy says, and by ``vm restart``."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from freezegun import freeze_time

from banger.actors.housekeeping import Housekeeper
from banger.actors.messages import DeleteVm, KillVm, ReconcileHost, ReconcileVm, RestartVm, StartVm, StopVm
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, Restarts, VmState
from banger.core.wire.port_forward import PortForward
from banger.vmm import identity as processes
from tests.support.fake_vmm import Fault
from tests.support.owned_vms import create, process_of
from tests.support.waiting import eventually


@pytest.fixture
def world(vm_world):
    return vm_world


def ends(world, vm, how="reboot"):
    """The machine ends by itself and the owner hears of it, as from the watcher."""
    identity = process_of(world, vm)
    world.vmm.exit(world.layout.vm_run_dir(vm.id), how)
    assert processes.wait_gone(identity, 10.0)
    return world.do(ReconcileVm(vm.id, vm.name, exited=identity))


def starts_again(world, **later):
    with freeze_time(clock.now() + timedelta(**later), tick=True):
        Housekeeper(world.services).start_again()
        world.do(ReconcileHost())
        # The owner looks at the clock too, when its turn comes.
        eventually(lambda: not world.operations.active(), what="whatever was wished is done")


def is_running(world, name="web"):
    return world.vm(name).state is VmState.RUNNING


def test_guest_that_reboots_comes_back_as_the_same_machine_at_the_same_ports(world):
    vm = create(world, start=True, ports=(PortForward(80),))
    down = ends(world, vm)
    assert (down.state, down.exit_reason) == (VmState.STOPPED, ExitReason.GUEST_REBOOT)

    starts_again(world)

    eventually(lambda: is_running(world), what="it runs again")
    again = world.vm("web")
    assert (again.id, again.ports, again.restarts) == (vm.id, vm.ports, Restarts(tries=1))
    assert again.pid != vm.pid


def test_guest_that_reboots_while_the_daemon_is_down_comes_back_with_the_daemon(world):
    vm = create(world, start=True)
    identity = process_of(world, vm)
    world.stop()
    world.vmm.exit(world.layout.vm_run_dir(vm.id), "reboot")
    assert processes.wait_gone(identity, 10.0)
    world.start()
    world.do(ReconcileHost(at_start=True))

    Housekeeper(world.services).begin()

    eventually(lambda: is_running(world), what="it runs again")


def test_guest_that_reboots_stays_down_if_so_wished(world):
    vm = create(world, start=True, on_reboot="stop")
    ends(world, vm)
    starts_again(world, minutes=5)
    assert world.vm("web").state is VmState.STOPPED


def test_ephemeral_vm_survives_a_reboot_and_is_gone_after_a_power_off(world):
    vm = create(world, start=True, ephemeral=True)
    assert ends(world, vm).restarts.due_at is not None
    starts_again(world, seconds=5)
    eventually(lambda: is_running(world), what="it runs again")
    ends(world, world.vm("web"), 0)
    assert world.store.vms.all() == []


def test_vm_whose_policy_is_always_comes_back_from_a_power_off(world):
    vm = create(world, start=True, restart="always")
    ends(world, vm, 0)
    starts_again(world)
    eventually(lambda: is_running(world), what="it runs again")
    assert world.vm("web").restarts.count == 1


@pytest.mark.parametrize("wish", [StopVm, KillVm])
@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_vm_stopped_by_hand_stays_down_and_only_always_comes_with_the_next_daemon(world, wish, policy):
    vm = create(world, start=True, restart=policy)
    world.do(wish(vm.id, vm.name))
    starts_again(world, hours=1)
    assert world.vm("web").state is VmState.STOPPED

    world.restart()
    world.do(ReconcileHost(at_start=True))
    Housekeeper(world.services).begin()
    world.do(ReconcileHost())

    if policy == "always":
        eventually(lambda: is_running(world), what="it runs again")
    else:
        assert world.vm("web").state is VmState.STOPPED


def test_vm_that_is_about_to_come_back_can_be_kept_down(world):
    vm = create(world, start=True, restart="always")
    ends(world, vm, "panic")
    world.do(StopVm(vm.id, vm.name))
    starts_again(world, hours=1)
    assert world.vm("web").state is VmState.STOPPED
    late = StartVm(vm.id, vm.name, again=True)  # was under way when somebody stopped it
    assert world.do(late).state is VmState.STOPPED


def test_start_by_hand_forgets_what_banger_did_by_itself(world):
    vm = create(world, start=True, restart="on-failure:1")
    ends(world, vm, "panic")
    starts_again(world)
    eventually(lambda: is_running(world), what="it runs again")
    assert ends(world, world.vm("web"), "panic").restarts.due_at is None

    started = world.do(StartVm(vm.id, vm.name))

    assert started.restarts == Restarts()
    assert ends(world, started, "panic").restarts.due_at is not None


def test_failed_restart_is_tried_again_later_as_the_policy_says(world, vmm):
    vm = create(world, start=True, restart="always")
    ends(world, vm, "panic")
    vmm.faults["web"] = Fault.REFUSED
    starts_again(world)
    eventually(lambda: world.vm("web").restarts.count == 2, what="the failure is counted")
    assert world.vm("web").state is VmState.STOPPED
    starts_again(world, seconds=90)
    eventually(lambda: is_running(world), what="it runs again")


def test_restart_stops_and_starts_keeping_the_random_ports(world):
    vm = create(world, start=True, ports=(PortForward(80),))
    again = world.do(RestartVm(vm.id, vm.name, 5.0))
    assert (again.state, again.ports) == (VmState.RUNNING, vm.ports)
    assert again.pid != vm.pid
    assert world.guests.asked_to_power_off == [vm.name]


def test_restart_starts_what_is_stopped(world):
    vm = create(world)
    assert world.do(RestartVm(vm.id, vm.name, 5.0)).state is VmState.RUNNING


def test_restart_whose_daemon_ends_in_between_is_finished_by_the_next(world):
    vm = create(world, start=True)
    due = Restarts(due_at=clock.now())
    world.store.vms.update(replace(world.vm("web"), state=VmState.STOPPING, restarts=due))  # as a crash leaves it
    world.restart()
    world.do(ReconcileHost(at_start=True))
    assert world.vm("web").state is VmState.STOPPED
    Housekeeper(world.services).begin()
    eventually(lambda: is_running(world), what="it runs again")
    assert world.vm("web").pid != vm.pid


def test_host_that_reboots_brings_back_only_what_is_to_last(world):
    for name, policy in (("web", "unless-stopped"), ("plain", "no"), ("fails", "on-failure")):
        vm = create(world, name, start=True, restart=policy)
        identity = process_of(world, vm)
        detail = {**world.ledger.of(vm.id).of("process")[0].detail, "boot_id": "another-boot"}
        world.ledger.of(vm.id).activate("process", identity.marker, detail)
        processes.kill(identity)
        processes.wait_gone(identity, 5)
    world.restart()
    world.do(ReconcileHost(at_start=True))
    Housekeeper(world.services).begin()
    eventually(lambda: is_running(world), what="it runs again")
    assert [world.vm(name).state for name in ("plain", "fails")] == [VmState.STOPPED] * 2


def test_creation_with_a_policy_that_is_none_leaves_nothing(world):
    with pytest.raises(BangerError) as caught:
        create(world, restart="perhaps")
    assert caught.value.kind is ErrorKind.USAGE
    assert world.store.vms.all() == []


def test_deletion_of_one_that_is_about_to_come_back_is_the_end_of_it(world):
    vm = create(world, start=True, restart="always")
    ends(world, vm, "panic")
    with pytest.raises(BangerError, match="is being started again") as caught:
        world.do(DeleteVm(vm.id, vm.name))
    assert caught.value.kind is ErrorKind.CONFLICT
    world.do(DeleteVm(vm.id, vm.name, force=True))
    starts_again(world, hours=1)
    assert world.store.vms.all() == []
