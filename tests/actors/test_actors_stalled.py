"""A machine that waits for the host to take what it writes: found, told, and let go on when the host does."""

from __future__ import annotations

import pytest

from banger.actors.housekeeping import Housekeeper
from banger.actors.messages import CreateVm, PauseVm, ReconcileHost, ResumeVm, StopVm
from banger.actors.vm_machines import machine_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.names import new_id
from banger.core.ports import Condition, Health
from banger.core.states import check_running
from banger.core.why import next_step, sentence
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.owned_vms import create, process_of
from tests.support.waiting import eventually

NO_ROOM = Condition(Health.NO_ROOM, "the host's disk is full")
FAILED = Condition(Health.DISK_FAILED, "the host's disk fails")


@pytest.fixture
def vm(vm_world: World) -> Vm:
    return create(vm_world, start=True)


def looked_after(world: World) -> Vm:
    """The VM once the housekeeper has looked and what it wished is done."""
    Housekeeper(world.services).check_vmms()
    at_rest(world)
    return world.vm("web")


def at_rest(world: World) -> None:
    """Wishes that nobody waits for are done behind this one, and then no owner is at work."""
    world.do(ReconcileHost())
    eventually(lambda: not world.operations.active(), what="all that was wished is done")


@pytest.mark.parametrize(
    ("condition", "by", "hint"), [(NO_ROOM, "guard", "banger system df"), (FAILED, "disk", "banger vm resume web")]
)
def test_machine_that_waits_for_the_host_is_shown_as_paused_with_the_reason(
    vm_world: World, vmm: FakeVmm, vm: Vm, condition: Condition, by: str, hint: str
) -> None:
    vmm.stalled[vm.id] = condition
    found = looked_after(vm_world)
    assert (found.state, found.paused_by) == (VmState.PAUSED, by)
    assert condition.words in sentence(found)
    assert hint in next_step(found, leftovers=1)
    with pytest.raises(BangerError, match="is paused, not running") as caught:
        check_running(found)
    assert condition.words in caught.value.cause


def test_machine_that_stopped_while_no_daemon_ran_is_found_at_its_start(vm_world: World, vmm: FakeVmm, vm: Vm) -> None:
    vmm.stalled[vm.id] = NO_ROOM
    vm_world.restart()
    (forecast,) = vm_world.do(ReconcileHost(dry_run=True)).stopped
    assert "the host's disk is full" in forecast
    assert vm_world.vm("web").state is VmState.RUNNING
    report = vm_world.do(ReconcileHost(at_start=True))
    assert report.adopted == ["web"]
    assert "the host's disk is full" in report.stopped[0]
    assert vm_world.vm("web").state is VmState.PAUSED
    again = vm_world.do(ReconcileHost())
    assert (again.stopped, again.failed) == ([], [])


def test_machine_that_waits_for_room_goes_on_by_itself_once_there_is_some(
    vm_world: World, vmm: FakeVmm, vm: Vm
) -> None:
    vmm.stalled[vm.id] = NO_ROOM
    looked_after(vm_world)
    Housekeeper(vm_world.services).guard()  # the tests' disk has room
    eventually(lambda: vm_world.vm("web").state is VmState.RUNNING, what="it goes on")
    assert (vm_world.vm("web").paused_by, vm_world.vm("web").reason, vmm.stalled) == ("", "", {})


def test_machine_whose_disk_failed_goes_on_only_by_its_user(vm_world: World, vmm: FakeVmm, vm: Vm) -> None:
    vmm.stalled[vm.id] = FAILED
    looked_after(vm_world)
    Housekeeper(vm_world.services).guard()
    at_rest(vm_world)
    assert vm_world.vm("web").state is VmState.PAUSED
    assert vm_world.do(ResumeVm(vm.id, vm.name)).state is VmState.RUNNING


def test_resume_of_a_machine_that_still_finds_no_room_says_so_and_the_vm_stays_paused(
    vm_world: World, vmm: FakeVmm, vm: Vm
) -> None:
    vmm.stalled[vm.id], vmm.has_room = NO_ROOM, False
    with pytest.raises(BangerError, match='VM "web" cannot go on') as caught:
        vm_world.do(ResumeVm(vm.id, vm.name))  # nobody had looked since it stopped: its row said that it runs
    assert (caught.value.kind, caught.value.cause) == (ErrorKind.EXHAUSTED, "the host's disk is full")
    assert (vm_world.vm("web").state, vm_world.vm("web").paused_by) == (VmState.PAUSED, "guard")
    vmm.has_room = True
    assert vm_world.do(ResumeVm(vm.id, vm.name)).state is VmState.RUNNING


def test_guard_that_cannot_help_though_there_is_room_does_not_try_for_ever(
    vm_world: World, vmm: FakeVmm, vm: Vm
) -> None:
    vmm.stalled[vm.id], vmm.has_room = NO_ROOM, False
    looked_after(vm_world)
    with pytest.raises(BangerError, match="cannot go on"):
        vm_world.do(ResumeVm(vm.id, vm.name, "guard"))
    assert vm_world.vm("web").paused_by == "disk"


def test_resume_of_a_machine_that_stands_still_for_no_reason_lets_it_go_on(
    vm_world: World, vmm: FakeVmm, vm: Vm
) -> None:
    """As after a pause whose undoing failed, or by somebody at the monitor."""
    machine = machine_of(vm_world.services, vm, process_of(vm_world, vm))
    vmm.pause(machine)
    assert vm_world.do(ResumeVm(vm.id, vm.name)).state is VmState.RUNNING
    assert vmm.condition(machine) == Condition()
    vmm.pause(machine)
    assert looked_after(vm_world).state is VmState.RUNNING
    eventually(lambda: vmm.condition(machine) == Condition(), what="it goes on without anybody's wish")


def test_user_who_pauses_it_too_keeps_it_from_going_on(vm_world: World, vmm: FakeVmm, vm: Vm) -> None:
    vmm.stalled[vm.id] = NO_ROOM
    looked_after(vm_world)
    vm_world.do(PauseVm(vm.id, vm.name))
    Housekeeper(vm_world.services).guard()
    at_rest(vm_world)
    assert (vm_world.vm("web").state, vm_world.vm("web").paused_by) == (VmState.PAUSED, "user")


def test_stop_of_a_machine_that_waits_for_the_host_ends_it(vm_world: World, vmm: FakeVmm, vm: Vm) -> None:
    vmm.stalled[vm.id], vmm.has_room = NO_ROOM, False
    vmm.deaf.add(vm.name)
    looked_after(vm_world)
    stop = vm_world.supervisor.submit(StopVm(vm.id, vm.name, timeout_s=0.1))
    notes: list[str] = []
    stop.subscribe(lambda event: notes.append(event.message))
    assert stop.wait().state is VmState.STOPPED
    assert any("did not power off within 0.1 s (the host's disk is full): killed" in note for note in notes)


def test_stop_that_is_given_up_leaves_nothing_said_of_the_pause_before_it(
    vm_world: World, vmm: FakeVmm, vm: Vm
) -> None:
    vmm.stalled[vm.id] = NO_ROOM
    vmm.deaf.add(vm.name)
    looked_after(vm_world)
    stop = vm_world.supervisor.submit(StopVm(vm.id, vm.name, timeout_s=60.0))
    eventually(lambda: vm_world.vm("web").state is VmState.STOPPING, what="it waits for the guest")
    stop.leave()
    eventually(lambda: vm_world.vm("web").state is VmState.RUNNING, what="it was given up")
    assert (vm_world.vm("web").paused_by, vm_world.vm("web").reason) == ("", "")


def test_boot_that_finds_no_room_fails_with_that_reason_and_not_as_a_bad_kernel(vm_world: World, vmm: FakeVmm) -> None:
    vm_id = new_id()
    vmm.stalled[vm_id], vmm.console = NO_ROOM, "banger: init 0.1\n"
    with pytest.raises(BangerError, match="did not boot: the host's disk is full") as caught:
        vm_world.do(CreateVm(vm_id, "web", VmSpec("alpine"), start=True))
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert "banger system df" in caught.value.hint
    vmm.stalled.clear()
