"""Coming down: every step runs whatever fails before it, and the report names exactly what failed."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from banger.actors.messages import CreateVm, DeleteVm, KillVm, ReconcileHost, StartVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from banger.host.journal import Journal
from tests.support.fake_capability import FakeCapability
from tests.support.fake_vmm import FakeFirecracker, FakeVmm, Fault
from tests.support.fakes import World

NAMES = ("nat", "dns", "tap")


@pytest.fixture
def capabilities(tmp_path: Path):
    place = tmp_path / "host"
    place.mkdir()
    return {name: FakeCapability(name, place) for name in NAMES}


@pytest.fixture(params=[FakeVmm, FakeFirecracker])
def world(tmp_path, capabilities, request):
    world = World(tmp_path / "home", request.param(), capabilities=tuple(capabilities.values()))
    yield world
    for capability in capabilities.values():
        capability.failing = 0
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    assert world.leftovers() == []
    assert [found for one in capabilities.values() for found in one.host_objects()] == []
    world.stop()


def running(world: World):
    return world.do(CreateVm(new_id(), "web", VmSpec("alpine"), start=True))


@pytest.mark.parametrize("broken", NAMES)
def test_step_that_fails_stops_no_other_and_is_the_only_one_reported(world, capabilities, broken):
    vm = running(world)
    capabilities[broken].failing = errno.EACCES

    with pytest.raises(BangerError) as caught:
        world.do(KillVm(vm.id, vm.name))

    assert [one.name for one in capabilities.values() if one.cleaned != [vm.id]] == []
    assert f'cannot clean up "{broken} of web"' in caught.value.cause
    assert not any(f"{other} of web" in caught.value.cause for other in NAMES if other != broken)
    assert caught.value.hint == "banger system reconcile"
    failed = world.vm("web")
    assert failed.state is VmState.FAILED
    assert [handle.kind for handle in world.ledger.of(vm.id).of()] == [broken]


@pytest.mark.parametrize("broken", NAMES)
def test_what_could_not_be_cleaned_is_cleaned_by_the_next_reconcile(world, capabilities, broken):
    vm = running(world)
    capabilities[broken].failing = errno.EACCES
    with pytest.raises(BangerError):
        world.do(KillVm(vm.id, vm.name))

    capabilities[broken].failing = 0
    world.do(ReconcileHost())

    assert world.vm("web").state is VmState.STOPPED
    assert world.ledger.all() == []
    again = world.do(ReconcileHost())
    assert str(again) == ""


@pytest.mark.parametrize("broken", NAMES)
def test_delete_that_could_not_clean_up_keeps_the_vm_and_is_resumed(world, capabilities, broken):
    vm = running(world)
    capabilities[broken].failing = errno.EACCES
    with pytest.raises(BangerError) as caught:
        world.do(DeleteVm(vm.id, vm.name, force=True))
    assert caught.value.message == 'VM "web" was not deleted completely'
    assert world.store.vms.get(vm.id) is not None

    capabilities[broken].failing = 0
    world.do(ReconcileHost())

    assert world.store.vms.get(vm.id) is None
    assert world.leftovers() == []


def test_cleanup_runs_in_the_reverse_order_of_the_start(world, capabilities):
    order: list[str] = []
    for capability in capabilities.values():
        capability.cleaned = _Noting(order, capability.name)  # type: ignore[assignment]
    vm = running(world)
    world.do(KillVm(vm.id, vm.name))
    assert order == ["tap", "dns", "nat"]


class _Noting(list[str]):
    def __init__(self, order: list[str], name: str) -> None:
        super().__init__()
        self._order, self._name = order, name

    def append(self, vm_id: str) -> None:
        super().append(vm_id)
        self._order.append(self._name)


def test_nothing_that_a_live_process_may_use_is_freed(world, capabilities, monkeypatch):
    vm = running(world)

    def refuse(identity: object, timeout_s: float = 0.0) -> None:
        raise BangerError(ErrorKind.TIMEOUT, "it does not die")

    monkeypatch.setattr(world.vmm, "kill", refuse)
    with pytest.raises(BangerError) as caught:
        world.do(KillVm(vm.id, vm.name))
    monkeypatch.undo()

    assert all(one.cleaned == [] for one in capabilities.values())
    assert all(one.object_of(vm.id).exists() for one in capabilities.values())
    assert 'left "tap of web" alone' in caught.value.cause


@pytest.mark.parametrize("refusing", NAMES)
def test_start_that_fails_half_way_undoes_what_it_began(world, capabilities, refusing):
    vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine")))
    capabilities[refusing].refuses = BangerError(ErrorKind.EXHAUSTED, "no more addresses")

    with pytest.raises(BangerError, match="no more addresses"):
        world.do(StartVm(vm.id, vm.name))

    capabilities[refusing].refuses = None
    assert world.vm("web").state is VmState.STOPPED
    assert world.ledger.all() == []
    assert [found.key for one in capabilities.values() for found in one.host_objects()] == []
    assert world.do(StartVm(vm.id, vm.name)).state is VmState.RUNNING


def test_vmm_that_does_not_start_leaves_nothing_of_any_capability(world, capabilities):
    world.vmm.faults["web"] = Fault.DIES
    with pytest.raises(BangerError):
        running(world)
    assert world.store.vms.all() == []
    assert [found.key for one in capabilities.values() for found in one.host_objects()] == []


def test_reconcile_removes_objects_that_no_ledger_names_once_they_are_old_enough(world, capabilities):
    vm = running(world)
    capabilities["tap"].object_of("0123456789ab").touch()

    young = world.do(ReconcileHost())
    assert young.removed == []
    told = world.do(ReconcileHost(dry_run=True, fix=True))
    assert told.removed == ["tap tap-0123456789ab"]
    assert capabilities["tap"].object_of("0123456789ab").exists()
    fixed = world.do(ReconcileHost(fix=True))

    assert fixed.removed == ["tap tap-0123456789ab"]
    assert [found.key for found in capabilities["tap"].host_objects()] == [f"tap-{vm.id}"]


def test_reconcile_refreshes_what_is_shared_with_the_vms_that_run(world, capabilities):
    running(world)
    world.do(CreateVm(new_id(), "idle", VmSpec("alpine")))
    world.do(ReconcileHost())
    assert capabilities["nat"].refreshed[-1] == {"web"}


def test_vm_whose_directory_was_removed_says_so_and_comes_down_all_the_same(world):
    vm = running(world)
    shutil.rmtree(world.layout.vm_dir(vm.id))
    assert world.do(KillVm(vm.id, vm.name)).state is VmState.STOPPED
    with pytest.raises(BangerError) as caught:
        world.do(StartVm(vm.id, vm.name))
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert "directory" in caught.value.message
    world.do(DeleteVm(vm.id, vm.name))
    assert world.store.vms.all() == []


def test_running_vm_is_deleted_on_a_disk_that_is_full(world, monkeypatch):
    vm = running(world)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    monkeypatch.setattr(Journal, "begin", full)
    world.do(DeleteVm(vm.id, vm.name, force=True))
    assert world.store.vms.all() == []


def test_host_that_cannot_be_looked_over_keeps_nothing_else_from_being_reconciled(world):
    def refuse() -> None:
        raise BangerError(ErrorKind.UNAVAILABLE, "cannot list taps")

    vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine"), start=False))
    orphan = world.layout.vm_dir("0123456789ab")
    orphan.mkdir()
    object.__setattr__(world.services.host, "host_objects", (refuse,))
    report = world.do(ReconcileHost(at_start=True))
    assert report.failed == ["objects on the host: cannot list taps"]
    assert not orphan.exists()
    assert world.layout.vm_dir(vm.id).exists()


def test_objects_of_a_live_vmm_that_nobody_can_place_are_reported_and_left(world, capabilities):
    vm = running(world)
    (handle,) = world.ledger.of(vm.id).of("process")
    journal = world.layout.vm_dir(vm.id) / "handles.journal"
    whole = journal.read_bytes()
    journal.write_bytes(b"")
    world.store.database.execute("DELETE FROM handles")
    world.store.vms.delete(vm.id)

    report = world.do(ReconcileHost(at_start=True))

    assert all(one.object_of(vm.id).exists() for one in capabilities.values())
    assert any(line.startswith(f"tap tap-{vm.id}: process {handle.detail['pid']}") for line in report.failed)
    assert report.removed == []
    journal.write_bytes(whole)
    assert world.do(ReconcileHost(at_start=True)).recovered == ["web"]
