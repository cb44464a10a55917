"""Records that lie: stores and files of another day, pids of other processes. No wrong kill, no wrong adoption."""

from __future__ import annotations

import shutil
import subprocess
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from banger.actors.messages import CreateVm, DeleteImage, DeleteVm, PauseVm, ReconcileHost, ResumeVm
from banger.actors.vm_machines import machine_of
from banger.core.models import ExitReason, ProcessIdentity, VmState
from banger.core.names import new_id, vmm_marker
from banger.core.wire.vm_spec import VmSpec
from banger.vmm import identity as processes
from tests.support.fake_vmm import FakeFirecracker, FakeVmm
from tests.support.fakes import World
from tests.support.soak import IS_SOAK
from tests.support.waiting import eventually


@pytest.fixture(params=[FakeVmm, FakeFirecracker])
def world(tmp_path, request):
    world = World(tmp_path, request.param())
    yield world
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    assert world.leftovers() == []
    world.stop()


@pytest.fixture
def bystander():
    """Somebody else's process, which must live on whatever happens."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    assert process.poll() is None, "an innocent process was killed"
    process.kill()
    process.wait()


def create(world, name="web", *, start=True, **spec):
    return world.do(CreateVm(new_id(), name, VmSpec("alpine", **spec), start=start))


def process_of(world, vm) -> ProcessIdentity:
    (handle,) = world.ledger.of(vm.id).of("process")
    return ProcessIdentity(**handle.detail)


def restart_with_the_store_of(world, backup: Path) -> None:
    """Stop the daemon, put an earlier database in the place of today's, start."""
    world.stop()
    for file in world.layout.data.glob("banger.db*"):
        file.unlink()
    shutil.copyfile(backup, world.layout.database)
    world.start()


def backup_of(world, tmp_path: Path) -> Path:
    target = tmp_path / f"backup-{new_id()}.db"
    world.store.database.execute("VACUUM INTO ?", (str(target),))
    return target


# -- a store put back from yesterday ---------------------------------------------------------------------


def test_vm_made_since_the_backup_is_found_and_goes_on(world, tmp_path):
    create(world, "old", start=False)
    backup = backup_of(world, tmp_path)
    vm = create(world)
    identity = process_of(world, vm)

    restart_with_the_store_of(world, backup)
    report = world.do(ReconcileHost(at_start=True))

    assert report.recovered == ["web"]
    assert report.adopted == ["web"]
    found = world.vm("web")
    assert (found.id, found.state, found.pid) == (vm.id, VmState.RUNNING, identity.pid)
    assert found.address == vm.address
    assert processes.is_same(identity)
    assert str(world.do(ReconcileHost(at_start=True))) == "adopted web"


def test_vm_started_anew_since_the_backup_is_adopted_with_its_present_process(world, tmp_path):
    vm = create(world)
    backup = backup_of(world, tmp_path)
    world.vmm.kill(process_of(world, vm))
    world.reconcile(vm)
    vm = world.do(_start(vm))
    identity = process_of(world, vm)

    restart_with_the_store_of(world, backup)
    world.do(ReconcileHost(at_start=True))

    assert process_of(world, vm) == identity
    assert processes.is_same(identity)
    assert world.vm("web").state is VmState.RUNNING


def test_vm_that_runs_although_the_store_takes_it_for_stopped_is_adopted_and_not_deleted_alive(world, tmp_path):
    vm = create(world, start=False)
    backup = backup_of(world, tmp_path)
    vm = world.do(_start(vm))
    identity = process_of(world, vm)

    restart_with_the_store_of(world, backup)
    report = world.do(ReconcileHost(at_start=True))

    assert report.adopted == ["web"]
    found = world.vm("web")
    assert (found.state, found.pid) == (VmState.RUNNING, identity.pid)
    assert processes.is_same(identity)
    world.do(DeleteVm(vm.id, vm.name, force=True))
    assert not processes.is_same(identity)


def test_vm_started_anew_since_the_backup_is_reached_at_its_present_port(world, tmp_path):
    vm = create(world)
    backup = backup_of(world, tmp_path)
    world.vmm.kill(process_of(world, vm))
    world.reconcile(vm)
    vm = world.do(_start(vm))

    restart_with_the_store_of(world, backup)
    world.do(ReconcileHost(at_start=True))

    assert world.vm("web").pid == vm.pid


def test_file_among_the_directories_of_vms_stops_no_reconcile(world):
    (world.layout.data / "vms" / "stray").touch()
    vm = create(world)
    world.vmm.kill(process_of(world, vm))
    world.do(ReconcileHost(at_start=True))
    assert world.vm("web").state is VmState.STOPPED
    (world.layout.data / "vms" / "stray").unlink(missing_ok=True)


def _start(vm):
    from banger.actors.messages import StartVm

    return StartVm(vm.id, vm.name)


def test_vm_deleted_since_the_backup_is_taken_down_without_harm(world, tmp_path, bystander):
    vm = create(world)
    backup = backup_of(world, tmp_path)
    world.do(DeleteVm(vm.id, vm.name, force=True))

    restart_with_the_store_of(world, backup)
    world.do(ReconcileHost(at_start=True))

    assert world.vm("web").state is VmState.STOPPED
    assert world.ledger.all() == []
    assert str(world.do(ReconcileHost(at_start=True))) == ""


def test_lost_vm_whose_name_is_taken_gets_another(world, tmp_path):
    backup = backup_of(world, tmp_path)
    lost = create(world)
    restart_with_the_store_of(world, backup)
    create(world, start=False)

    report = world.do(ReconcileHost(at_start=True))

    assert report.recovered == ["web"]
    assert world.store.vms.get(lost.id).name == f"web-{lost.id[:4]}"
    assert world.store.vms.get(lost.id).state is VmState.RUNNING


def test_dry_run_tells_what_a_reconcile_would_do_and_does_nothing(world, tmp_path):
    backup = backup_of(world, tmp_path)
    vm = create(world)
    restart_with_the_store_of(world, backup)

    told = world.do(ReconcileHost(dry_run=True))

    assert told.recovered == ["web"]
    assert world.store.vms.all() == []
    assert world.layout.vm_dir(vm.id).exists()
    world.do(ReconcileHost(at_start=True))


def test_vms_made_while_a_reconcile_looks_around_are_neither_recovered_nor_removed(world, monkeypatch):
    """A slow first reconcile has no grace for anybody, and callers are served beside it."""
    table, made = world.store.vms, []
    look = type(table).all

    def look_and_then_create(self):
        rows = look(self)
        if threading.current_thread().name.startswith("HostActor") and len(made) < 5:
            made.append(None)
            create(world, f"new{len(made)}", start=False)
        return rows

    monkeypatch.setattr(type(table), "all", look_and_then_create)
    report = world.do(ReconcileHost(at_start=True))
    monkeypatch.undo()

    assert made
    assert str(report) == ""
    assert all(world.layout.vm_dir(vm.id).exists() for vm in table.all())


# -- a damaged file --------------------------------------------------------------------------------------


def test_journal_cut_at_any_byte_neither_loses_the_vm_nor_its_process(world):
    vm = create(world)
    identity = process_of(world, vm)
    journal = world.layout.vm_dir(vm.id) / "handles.journal"
    data = journal.read_bytes()
    for cut in {*range(0, len(data), 7 if IS_SOAK else 41), len(data) - 1}:
        journal.write_bytes(data[:cut])
        world.do(ReconcileHost(at_start=True))
        assert process_of(world, vm) == identity
        assert world.vm("web").state is VmState.RUNNING
    journal.write_bytes(data)


def test_journal_cut_at_any_byte_with_the_row_lost_never_kills_and_never_strands(world, tmp_path):
    """The worst of both: what the file still tells decides, and a live VMM that nobody can place is left alone."""
    vm = create(world)
    identity = process_of(world, vm)
    journal = world.layout.vm_dir(vm.id) / "handles.journal"
    data = journal.read_bytes()
    for cut in {*range(0, len(data), 97), len(data) - 1}:
        world.store.database.execute("DELETE FROM handles")
        world.store.vms.delete(vm.id)
        journal.write_bytes(data[:cut])
        report = world.do(ReconcileHost(at_start=True))
        known = world.store.vms.get(vm.id)
        if known is None:
            assert any(f"process {identity.pid}" in line for line in report.failed)
            assert processes.is_same(identity)
            assert world.layout.vm_dir(vm.id).exists()
        elif known.state is VmState.RUNNING:
            assert processes.is_same(identity)
        else:  # the file ends before the start was complete: finished the safe way
            assert not processes.is_same(identity)
            break
    if world.store.vms.get(vm.id) is None:
        journal.write_bytes(data)
        world.do(ReconcileHost(at_start=True))


# -- a pid that is somebody else's -----------------------------------------------------------------------


@pytest.mark.parametrize("forged", ["start", "marker", "boot"])
def test_recorded_pid_of_another_process_is_never_killed_and_never_adopted(world, bystander, forged):
    vm = create(world)
    true = process_of(world, vm)
    other = processes.identify(bystander.pid, vmm_marker(vm.id))
    lie = {
        "start": replace(other, start_ticks=true.start_ticks),
        "marker": other,  # its own start time, but another command line
        "boot": replace(other, boot_id="another-boot"),
    }[forged]
    world.vmm.kill(true)
    world.ledger.of(vm.id).activate("process", true.marker, asdict(lie))

    reconciled = world.reconcile(vm)

    assert reconciled.state is VmState.STOPPED
    assert world.ledger.of(vm.id).of() == []


def test_wrong_pid_in_the_record_does_not_hide_the_live_process(world, bystander):
    """An old record with a new process: found by its marker, so that stopping the VM really ends it."""
    vm = create(world)
    true = process_of(world, vm)
    world.ledger.of(vm.id).activate("process", true.marker, asdict(replace(true, pid=bystander.pid)))

    assert world.reconcile(vm).state is VmState.RUNNING
    world.do(DeleteVm(vm.id, vm.name, force=True))

    assert not processes.is_same(true)


def test_host_reboot_is_told_and_only_files_are_cleaned(world, bystander):
    vm = create(world)
    true = process_of(world, vm)
    world.vmm.kill(true)
    lie = replace(processes.identify(bystander.pid, true.marker), boot_id="another-boot")
    world.ledger.of(vm.id).activate("process", true.marker, asdict(lie))
    assert world.reconcile(vm).exit_reason is ExitReason.HOST_REBOOT


# -- standing still --------------------------------------------------------------------------------------


def state_of(identity: ProcessIdentity) -> str:
    return Path(f"/proc/{identity.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


def test_paused_vm_stands_still_until_it_is_resumed(world):
    vm = create(world)
    identity = process_of(world, vm)
    paused = world.do(PauseVm(vm.id, vm.name, reason="lunch"))
    assert (paused.state, paused.paused_by, paused.reason) == (VmState.PAUSED, "user", "lunch")
    eventually(lambda: state_of(identity) == "T", what="it stands still")
    resumed = world.do(ResumeVm(vm.id, vm.name))
    assert (resumed.state, resumed.paused_by, resumed.reason) == (VmState.RUNNING, "", "")
    eventually(lambda: state_of(identity) != "T", what="it goes on")


def test_paused_vm_is_still_paused_after_a_restart(world):
    vm = create(world)
    world.do(PauseVm(vm.id, vm.name))
    world.vmm.resume(
        machine_of(world.services, vm, process_of(world, vm))
    )  # as if the daemon had died between the row and the deed
    world.restart()
    world.do(ReconcileHost(at_start=True))
    assert world.vm("web").state is VmState.PAUSED
    eventually(lambda: state_of(process_of(world, vm)) == "T", what="it stands still")


def test_image_of_a_lost_vm_cannot_be_deleted_once_it_is_found(world, tmp_path):
    create(world, "old", start=False)
    backup = backup_of(world, tmp_path)
    vm = create(world)
    restart_with_the_store_of(world, backup)
    world.do(ReconcileHost(at_start=True))
    from banger.core.errors import BangerError

    with pytest.raises(BangerError, match="in use"):
        world.do(DeleteImage("alpine", world.store.vms.get(vm.id).image_id))
