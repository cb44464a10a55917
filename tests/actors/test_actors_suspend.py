"""Suspended VMs over fake machines: what they keep, what ends with them, and what is refused before anything is touched."""

from __future__ import annotations

import socket
import stat
from dataclasses import replace
from datetime import timedelta

import pytest

from banger.actors.housekeeping import Housekeeper
from banger.actors.messages import (
    DeleteVm,
    GrowVm,
    KillVm,
    PauseVm,
    ReconcileHost,
    ReconcileVm,
    RestartVm,
    StartVm,
    StopVm,
    SuspendVm,
    WakeVm,
)
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, ProcessIdentity, VmState
from banger.core.suspension import IDLE, SHUTDOWN, USER
from banger.core.wire.port_forward import PortForward
from tests.support.copied_guest import CopiedGuest
from tests.support.fake_vmm import FRESH_MEMORY, Fault
from tests.support.owned_vms import create, process_of
from tests.support.saved_vms import copied_guests, fork, read, snapshot, write
from tests.support.waiting import eventually

NOBODY = ProcessIdentity(0, 0, "", "")


@pytest.fixture
def world(vm_world):
    vm_world.copies = copied_guests(vm_world)
    return vm_world


@pytest.fixture
def vm(world):
    """A running VM with something in its memory and on its disk."""
    vm = create(world, start=True, ports=(PortForward(80),))
    write(world, vm, "first")
    return vm


def suspend(world, vm, **wishes):
    return world.do(SuspendVm(vm.id, vm.name, **wishes))


def start(world, vm, **wishes):
    return world.do(StartVm(vm.id, vm.name, **wishes))


def refused(world, command):
    with pytest.raises(BangerError) as caught:
        world.do(command)
    return caught.value


def reconciled(world, vm):
    """The VM after a look at it that comes in its turn, whatever its owner is about to end."""
    return world.do(ReconcileVm(vm.id, "web", exited=NOBODY))


def left(world, vm):
    """What there is of a suspension in its directory."""
    return sorted(path.name for path in world.layout.vm_dir(vm.id).glob("suspend*"))


def test_suspended_vm_has_nothing_on_the_host_but_its_files(world, vm):
    process = process_of(world, vm)
    suspended = suspend(world, vm)

    assert (suspended.state, suspended.pid, suspended.exit_reason) == (VmState.SUSPENDED, 0, ExitReason.NONE)
    assert not world.vmm.is_alive(process)
    assert world.ledger.of(vm.id).of() == []
    assert world.guests.left[vm.id] == "the VM was suspended"
    assert left(world, vm) == ["suspended"]
    directory = world.layout.suspended_dir(vm.id)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "machine" / "memory").stat().st_mode) == 0o400


def test_suspended_vm_goes_on_where_it_was_as_the_vm_that_it_was(world, vm):
    suspend(world, vm)
    again = start(world, vm)

    assert read(world, again) == ("first", "first")
    assert (again.state, again.id, again.ports, again.address) == (VmState.RUNNING, vm.id, vm.ports, vm.address)
    assert left(world, vm) == []
    assert world.vmm.condition(_machine(world, again)).words == ""
    guest = world.copies[vm.id]
    assert [one for one in guest.asked if one in ("random numbers", "clock")] == ["random numbers", "clock"]
    assert not {"machine-id", "boot id", "host name", "ssh host key", "VM id", "random seeds"} & set(guest.asked)
    assert guest.behind_ns < 1e9


def test_suspended_vm_can_be_suspended_time_and_again(world, vm):
    for text in ("second", "third"):
        suspend(world, vm)
        vm = start(world, vm)
        write(world, vm, text)
    suspend(world, vm)
    assert read(world, start(world, vm)) == ("third", "third")


def test_hooks_hear_that_it_was_woken(world, vm):
    suspend(world, vm)
    start(world, vm)
    assert "hooks" in world.copies[vm.id].asked


def test_paused_vm_may_be_suspended_and_runs_when_it_wakes(world, vm):
    world.do(PauseVm(vm.id, "web"))
    assert suspend(world, vm).state is VmState.SUSPENDED
    again = start(world, vm)
    assert (again.state, again.paused_by, read(world, again)) == (VmState.RUNNING, "", ("first", "first"))


def test_suspending_a_suspended_vm_changes_nothing(world, vm):
    before = suspend(world, vm)
    assert suspend(world, vm) == before


def test_cold_start_boots_from_the_disk(world, vm):
    suspend(world, vm)
    again = start(world, vm, cold=True)
    assert read(world, again) == (FRESH_MEMORY, "first")
    assert left(world, vm) == []


@pytest.mark.parametrize(("command", "why"), [(StopVm, ExitReason.REQUESTED), (KillVm, ExitReason.REQUESTED)])
def test_stop_gives_up_what_was_in_its_memory(world, vm, command, why):
    suspend(world, vm)
    stopped = world.do(command(vm.id, "web"))
    assert (stopped.state, stopped.exit_reason, left(world, vm)) == (VmState.STOPPED, why, [])
    assert read(world, start(world, vm)) == (FRESH_MEMORY, "first")


def test_restart_has_the_guest_power_off_in_order(world, vm):
    suspend(world, vm)
    assert world.do(RestartVm(vm.id, "web")).state is VmState.RUNNING
    assert world.guests.asked_to_power_off == ["web"]
    assert left(world, vm) == []


def test_deleted_vm_takes_it_with_it(world, vm):
    suspend(world, vm)
    world.do(DeleteVm(vm.id, "web"))
    assert not world.layout.vm_dir(vm.id).exists()


# -- waking ----------------------------------------------------------------------------------------------


def test_wake_of_a_vm_that_runs_is_the_vm_and_of_a_stopped_one_an_error(world, vm):
    assert world.do(WakeVm(vm.id, "web")).state is VmState.RUNNING
    launches = len(world.vmm.launched)
    world.do(StopVm(vm.id, "web"))
    assert refused(world, WakeVm(vm.id, "web")).hint == "banger vm start web"
    assert len(world.vmm.launched) == launches


def test_many_who_wake_it_at_once_wake_it_once(world, vm):
    suspend(world, vm)
    launches = len(world.vmm.launched)
    waiters = [world.supervisor.submit(WakeVm(vm.id, "web")) for _ in range(8)]
    assert {waiter.wait().state for waiter in waiters} == {VmState.RUNNING}
    assert len(world.vmm.launched) == launches + 1


def test_wake_that_fails_leaves_it_suspended_and_says_the_way_out(world, vm):
    suspend(world, vm)
    world.vmm.faults["web"] = Fault.DIES
    error = refused(world, StartVm(vm.id, "web"))
    assert (error.message, error.kind) == ('VM "web" cannot be resumed', ErrorKind.UNAVAILABLE)
    assert "banger vm start --cold web" in error.hint
    assert (world.vm("web").state, left(world, vm)) == (VmState.SUSPENDED, ["suspended"])
    assert read(world, start(world, vm)) == ("first", "first")


def test_other_version_of_the_vmm_is_told_and_it_stays_suspended(world, vm, monkeypatch):
    suspend(world, vm)
    monkeypatch.setattr(type(world.vmm), "version", lambda _: "9.9.9")
    error = refused(world, StartVm(vm.id, "web"))
    assert "1.2.3" in error.cause
    assert "9.9.9" in error.cause
    assert world.vm("web").state is VmState.SUSPENDED
    assert start(world, vm, cold=True).state is VmState.RUNNING


@pytest.mark.parametrize("name", ["machine/memory", "machine/devices", "suspended.json"])
def test_damaged_file_is_told_and_it_boots_only_if_that_is_wished(world, vm, name):
    suspend(world, vm)
    damaged = world.layout.suspended_dir(vm.id) / name
    damaged.unlink()
    if name.endswith("json"):
        damaged.write_text("{")
    error = refused(world, StartVm(vm.id, "web"))
    assert (error.kind, error.message) == (ErrorKind.INVALID, 'VM "web" cannot be resumed')
    assert reconciled(world, vm).state is VmState.SUSPENDED
    assert read(world, start(world, vm, cold=True)) == (FRESH_MEMORY, "first")


def test_woken_guest_that_is_not_renewed_is_suspended_again(world, vm):
    suspend(world, vm)
    world.copies[vm.id] = CopiedGuest(ignores="clock")
    error = refused(world, StartVm(vm.id, "web"))
    assert "has not renewed its clock" in error.cause
    assert "banger vm start --cold web" in error.hint
    assert (world.vm("web").state, left(world, vm)) == (VmState.SUSPENDED, ["suspended"])
    assert world.ledger.of(vm.id).of() == []
    world.copies[vm.id] = CopiedGuest()
    assert read(world, start(world, vm)) == ("first", "first")


def test_wake_that_nobody_waits_for_any_more_loses_nothing(world, vm):
    suspend(world, vm)
    world.guests.silent = True
    waiter = world.supervisor.submit(WakeVm(vm.id, "web"))
    eventually(lambda: "connect" in [step.name for step in waiter.operation.steps] if waiter.operation else False)
    waiter.leave()
    eventually(lambda: world.vm("web").state is VmState.SUSPENDED, what="it sleeps again")
    world.guests.silent = False
    assert read(world, start(world, vm)) == ("first", "first")


def test_woken_vm_that_ends_is_stopped(world, vm):
    suspend(world, vm)
    world.guests.refusal = BangerError(ErrorKind.UNAVAILABLE, "it hung up")
    world.vmm.cannot_save = "it is too late"
    assert refused(world, StartVm(vm.id, "web")).kind is ErrorKind.UNAVAILABLE
    assert (world.vm("web").state, left(world, vm)) == (VmState.STOPPED, [])


# -- what is refused -------------------------------------------------------------------------------------


def test_what_cannot_be_saved_is_told_before_anything_is_touched(world, vm):
    world.vmm.cannot_save = "a part of it is elsewhere"
    error = refused(world, SuspendVm(vm.id, "web"))
    assert (error.kind, error.cause) == (ErrorKind.UNAVAILABLE, "a part of it is elsewhere")
    assert (world.vm("web"), left(world, vm)) == (vm, [])


def test_stopped_vm_is_not_suspended(world, vm):
    world.do(StopVm(vm.id, "web"))
    error = refused(world, SuspendVm(vm.id, "web"))
    assert (error.kind, error.hint) == (ErrorKind.CONFLICT, "banger vm start web")


def test_save_that_fails_leaves_it_running(world, vm):
    def full():
        raise BangerError(ErrorKind.EXHAUSTED, "the disk is full")

    world.vmm.while_saving = full
    assert refused(world, SuspendVm(vm.id, "web")).kind is ErrorKind.EXHAUSTED
    assert (world.vm("web"), left(world, vm)) == (vm, [])
    assert world.vmm.condition(_machine(world, vm)).words == ""
    assert world.ledger.of(vm.id).of("saver") == []


def test_vm_that_ends_while_it_is_saved_is_stopped(world, vm):
    world.vmm.while_saving = lambda: world.vmm.kill(process_of(world, vm))
    assert refused(world, SuspendVm(vm.id, "web")).kind is ErrorKind.CONFLICT
    assert reconciled(world, vm).state is VmState.STOPPED
    assert left(world, vm) == []


def test_banger_does_not_suspend_a_vm_that_somebody_uses_by_then(world, vm):
    world.guests.busy[vm.id] = 1
    assert suspend(world, vm, by=IDLE, reason="nobody has used it").state is VmState.RUNNING
    world.guests.busy.clear()
    assert suspend(world, vm, by=IDLE, reason="nobody has used it").reason == "nobody has used it"


def test_suspended_vm_is_neither_grown_nor_snapshotted_nor_forked(world, vm):
    suspend(world, vm)
    assert refused(world, GrowVm(vm.id, "web", 20480)).kind is ErrorKind.CONFLICT
    for deed in (lambda: snapshot(world, vm), lambda: fork(world, vm, "fork")):
        with pytest.raises(BangerError) as caught:
            deed()
        assert caught.value.hint == "banger vm start web"


# -- its published ports ---------------------------------------------------------------------------------


def connected(forward):
    return socket.create_connection((forward.host_address, forward.host_port), timeout=10)


def test_who_comes_to_a_published_port_wakes_it_and_is_let_in_there(world, vm):
    suspend(world, vm)
    [port] = vm.ports
    assert world.ports_besides("") == {}
    with connected(port):
        eventually(lambda: world.vm("web").state is VmState.RUNNING, what="it wakes")
    assert world.vm("web").ports == vm.ports
    assert read(world, vm) == ("first", "first")
    assert not world.doorbells.holds(vm.id)


def test_port_of_a_suspended_vm_is_nobody_elses_and_the_refusal_names_it(world, vm):
    suspend(world, vm)
    with pytest.raises(BangerError) as caught:
        create(world, "other", start=True, ports=vm.ports)
    assert caught.value.cause == 'VM "web" holds it'
    world.do(StopVm(vm.id, "web"))
    assert create(world, "other", start=True, ports=vm.ports).ports == vm.ports


def test_next_daemon_listens_at_its_ports_again(world, vm):
    suspend(world, vm)
    world.restart()
    world.do(ReconcileHost(at_start=True))
    Housekeeper(world.services).begin()
    copied_guests(world)
    with connected(vm.ports[0]):
        eventually(lambda: world.vm("web").state is VmState.RUNNING, what="it wakes")


def test_wake_that_fails_refuses_who_waits_and_listens_again(world, vm):
    suspend(world, vm)
    world.vmm.faults["web"] = Fault.DIES
    [port] = vm.ports
    with connected(port) as client, pytest.raises(OSError, match="reset"):
        client.recv(1)
    eventually(lambda: world.doorbells.holds(vm.id), what="its ports are held again")
    assert world.vm("web").state is VmState.SUSPENDED


def test_port_that_somebody_else_has_by_now_is_listened_at_once_it_is_free(world, vm):
    housekeeper = Housekeeper(world.services)
    [port] = vm.ports
    suspend(world, vm)
    world.doorbells.let_go(vm.id)
    with socket.create_server((port.host_address, port.host_port)):
        housekeeper.answer_doors()
        assert not world.doorbells.holds(vm.id)
    housekeeper.answer_doors()
    assert world.doorbells.holds(vm.id)


def test_ports_of_a_stopped_or_deleted_vm_are_free(world, vm):
    suspend(world, vm)
    world.do(DeleteVm(vm.id, "web"))
    with pytest.raises(ConnectionRefusedError):
        connected(vm.ports[0])


# -- the daemon and the host -----------------------------------------------------------------------------


def test_vm_is_suspended_for_the_next_daemon_too(world, vm):
    suspend(world, vm)
    world.restart()
    report = world.do(ReconcileHost(at_start=True))
    assert (report.stopped, report.removed, report.failed) == ([], [], [])
    copied_guests(world)
    assert read(world, start(world, vm)) == ("first", "first")


@pytest.mark.parametrize(("by", "state"), [(SHUTDOWN, VmState.RUNNING), (USER, VmState.SUSPENDED)])
def test_what_ran_when_the_host_went_down_is_brought_back(world, vm, by, state):
    suspend(world, vm, by=by)
    world.restart()
    world.do(ReconcileHost(at_start=True))
    copied_guests(world)
    Housekeeper(world.services).begin()
    world.do(ReconcileHost())
    eventually(lambda: world.vm("web").state is state, what="it is as it was")
    assert by == USER or read(world, world.vm("web")) == ("first", "first")


def test_row_that_was_lost_comes_back_suspended(world, vm):
    suspend(world, vm)
    world.store.vms.delete(vm.id)
    world.do(ReconcileHost(at_start=True))
    assert world.vm("web").state is VmState.SUSPENDED
    assert read(world, start(world, vm)) == ("first", "first")


@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.FAILED])
def test_store_that_was_put_back_does_not_lose_a_suspended_vm(world, vm, state):
    suspended = suspend(world, vm)
    older = replace(suspended, state=state, started_at=suspended.started_at - timedelta(hours=1))
    world.store.vms.update(older)
    world.do(ReconcileHost(at_start=True))
    assert world.vm("web").state is VmState.SUSPENDED
    assert read(world, start(world, vm)) == ("first", "first")


def test_machine_of_an_earlier_start_is_never_resumed(world, vm):
    """As a store that was put back, or another banger, may leave it."""
    suspended = suspend(world, vm)
    files = {path: path.read_bytes() for path in world.layout.suspended_dir(vm.id).rglob("*") if path.is_file()}
    again = start(world, vm)
    write(world, again, "later")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert suspended.started_at != again.started_at
    assert reconciled(world, vm).state is VmState.RUNNING
    assert read(world, vm) == ("later", "later")
    assert left(world, vm) == []


def _machine(world, vm):
    from banger.actors.vm_machines import machine_of

    return machine_of(world.services, vm, process_of(world, vm))
