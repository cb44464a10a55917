"""A VM that did not come up or ended by itself leaves evidence, whatever else becomes of it."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from banger.actors.messages import CreateVm, DeleteVm, KillVm, Prune, ReconcileHost, StartVm, StopVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.evidence import Happened
from banger.core.models import ExitReason, VmState
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from banger.vmm import identity as processes
from tests.support.fake_vmm import Fault
from tests.support.fakes import World
from tests.support.owned_vms import create, process_of
from tests.support.waiting import eventually

PANIC = "banger: init 0.1\n[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n"


def only(world: World):  # type: ignore[no-untyped-def]
    (record,) = world.evidence.all()
    return record


def end(world: World, vm, number: int = signal.SIGKILL) -> None:  # type: ignore[no-untyped-def]
    identity = process_of(world, vm)
    processes.kill(identity, number)
    eventually(lambda: not processes.is_same(identity))


def test_vm_that_does_not_boot_leaves_its_console_although_it_is_gone(vm_world: World) -> None:
    vm_world.vmm.console = PANIC
    with pytest.raises(BangerError, match="Unable to mount root") as caught:
        create(vm_world, start=True, ephemeral=True, env=("TOKEN=open sesame",))
    record = only(vm_world)
    assert vm_world.store.vms.all() == []
    assert vm_world.leftovers() == []
    assert record.happened is Happened.START
    assert (record.vm.name, record.accelerator) == ("web", "tcg")
    assert "Unable to mount root" in record.console
    assert "process" in [handle["kind"] for handle in record.handles]
    assert [step.name for step in record.steps][-1] == "boot guest"
    assert record.image["name"] == "alpine"
    assert record.kernel["digest"]
    assert record.cause == caught.value.cause
    assert caught.value.hint.endswith("all that is known: banger vm why web")
    assert "sesame" not in str(record)


def test_start_that_fails_later_leaves_evidence_too(vm_world: World) -> None:
    vm = create(vm_world)
    vm_world.vmm.faults["web"] = Fault.DIES
    with pytest.raises(BangerError):
        vm_world.do(StartVm(vm.id, vm.name))
    assert only(vm_world).happened is Happened.START
    assert vm_world.vm("web").state is VmState.STOPPED


def test_vm_that_cannot_be_made_leaves_evidence(vm_world: World) -> None:
    vm_world.images.failures.append(BangerError(ErrorKind.UNAVAILABLE, "the registry burns"))
    with pytest.raises(BangerError, match="burns"):
        create(vm_world, start=True)
    record = only(vm_world)
    assert record.happened is Happened.CREATE
    assert record.words == "the registry burns"
    assert "fetch layers" in [step.name for step in record.steps]


def test_slip_of_the_pen_is_no_incident(vm_world: World) -> None:
    vm_world.images.failures.append(BangerError(ErrorKind.NOT_FOUND, 'image "debain" not found'))
    with pytest.raises(BangerError):
        create(vm_world, start=True)
    assert vm_world.evidence.all() == []


@pytest.mark.parametrize("ephemeral", [False, True])
def test_vm_that_ends_by_itself_leaves_evidence(vm_world: World, ephemeral: bool) -> None:
    vm = create(vm_world, start=True, ephemeral=ephemeral)
    end(vm_world, vm, signal.SIGSEGV)
    vm_world.reconcile(vm)
    record = only(vm_world)
    assert record.happened is Happened.EXIT
    assert record.exit_reason is ExitReason.VMM_CRASH
    assert (vm_world.store.vms.get(vm.id) is None) is ephemeral
    vm_world.do(ReconcileHost())
    assert len(vm_world.evidence.all()) == 1


def test_vm_that_ended_while_the_daemon_was_down_leaves_evidence(vm_world: World) -> None:
    vm = create(vm_world, start=True, ephemeral=True)
    vm_world.stop()
    identity = process_identity(vm_world, vm)
    processes.kill(identity)
    eventually(lambda: not processes.is_same(identity))
    vm_world.start()
    vm_world.do(ReconcileHost(at_start=True))
    assert only(vm_world).vm.name == "web"
    assert vm_world.store.vms.all() == []


@pytest.mark.parametrize("dies", [True, False])
def test_vm_of_a_session_that_went_with_its_daemon_leaves_evidence_only_if_it_died(vm_world: World, dies: bool) -> None:
    vm = vm_world.do(CreateVm(new_id(), "web", VmSpec("alpine", ephemeral=True), start=True, attended=True))
    identity = process_of(vm_world, vm)
    vm_world.stop()
    if dies:
        processes.kill(identity)
        eventually(lambda: not processes.is_same(identity))
    vm_world.start()
    vm_world.do(ReconcileHost(at_start=True))
    assert vm_world.store.vms.all() == []
    assert [one.happened for one in vm_world.evidence.all()] == [Happened.EXIT] * dies


def process_identity(world: World, vm):  # type: ignore[no-untyped-def]
    found = world.vmm.find(f"banger-vm-{vm.id}")
    assert found is not None
    return found


def test_wish_to_delete_stop_or_kill_that_finds_it_dead_keeps_how_it_ended(vm_world: World) -> None:
    for number, wish in enumerate((DeleteVm, StopVm, KillVm)):
        vm = create(vm_world, f"vm{number}", start=True)
        end(vm_world, vm)
        extra = {DeleteVm: (True,), StopVm: (1.0,), KillVm: ()}[wish]
        vm_world.do(wish(vm.id, vm.name, *extra))
        assert vm_world.evidence.all()[0].vm.id == vm.id
    assert vm_world.vm("vm1").exit_reason is ExitReason.KILLED


def test_vm_whose_guest_was_lost_is_given_a_moment_to_end(vm_world: World) -> None:
    vm = create(vm_world, start=True, ephemeral=True)
    identity = process_of(vm_world, vm)
    waited: list[float] = []
    original = vm_world.vmm.wait_exit

    def ends_meanwhile(one, timeout_s, token=None):  # type: ignore[no-untyped-def]
        waited.append(timeout_s)
        processes.kill(identity, signal.SIGSEGV)
        return original(one, 10.0)

    vm_world.vmm.wait_exit = ends_meanwhile
    vm_world.do(DeleteVm(vm.id, vm.name, force=True, lost=True))
    assert waited
    assert only(vm_world).exit_reason is ExitReason.VMM_CRASH


def test_what_was_wished_leaves_nothing(vm_world: World) -> None:
    for number, wish in enumerate((DeleteVm, StopVm, KillVm)):
        vm = create(vm_world, f"vm{number}", start=True)
        extra = {DeleteVm: (True,), StopVm: (5.0,), KillVm: ()}[wish]
        vm_world.do(wish(vm.id, vm.name, *extra))
    vm = create(vm_world, start=True)
    vm_world.vmm.exit(vm_world.layout.vm_run_dir(vm.id), 0)
    eventually(lambda: vm_world.reconcile(vm).state is VmState.STOPPED)  # type: ignore[union-attr]
    assert vm_world.vm("web").exit_reason is ExitReason.GUEST_POWEROFF
    assert vm_world.evidence.all() == []


def test_full_disk_keeps_no_cascade_from_running(vm_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("banger.host.evidence.store.gather", full)
    vm_world.vmm.console = PANIC
    with pytest.raises(BangerError, match="Unable to mount root"):
        create(vm_world, start=True, ephemeral=True)
    assert vm_world.store.vms.all() == []
    assert vm_world.leftovers() == []
    assert vm_world.evidence.all() == []


def test_start_that_is_called_off_while_it_boots_leaves_evidence(vm_world: World) -> None:
    vm_world.vmm.console = "banger: init 0.1\n"
    vm = create(vm_world)
    waiter = vm_world.supervisor.submit(StartVm(vm.id, vm.name))
    console = vm_world.layout.vm_dir(vm.id) / "console.log"
    eventually(lambda: console.exists() and "init" in console.read_text())
    waiter.leave()
    eventually(lambda: vm_world.vm("web").state is VmState.STOPPED)
    assert only(vm_world).error_kind == "cancelled"


def test_reconcile_removes_what_is_too_old_and_says_so(vm_world: World) -> None:
    vm_world.vmm.console = PANIC
    with pytest.raises(BangerError):
        create(vm_world, start=True)
    (record,) = vm_world.layout.evidence.iterdir()
    record.rename(record.with_name(f"20200101T000000.000000-{record.name.partition('-')[2]}"))
    assert [one for one in vm_world.do(ReconcileHost(dry_run=True)).removed if one.startswith("evidence ")]
    assert vm_world.evidence.all() != []
    assert [one for one in vm_world.do(ReconcileHost()).removed if one.startswith("evidence ")]
    assert vm_world.evidence.all() == []


def test_prune_of_everything_takes_evidence_and_tells_so(vm_world: World) -> None:
    vm_world.vmm.console = PANIC
    with pytest.raises(BangerError):
        create(vm_world, start=True)
    assert vm_world.do(Prune(("evidence",), False, False)).removed == []
    assert len(vm_world.do(Prune(("evidence",), True, True)).removed) == 1
    report = vm_world.do(Prune(("evidence",), True, False))
    assert report.removed[0].startswith("evidence ")
    assert vm_world.evidence.all() == []
