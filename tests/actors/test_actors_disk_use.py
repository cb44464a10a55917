"""The disk of a VM is used by one at a time: committing takes its turn between starting, growing and deleting."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from banger.actors.base import OwnerActor
from banger.actors.messages import Command, CommitVm, CreateVm, DeleteVm, GrowVm, KillVm, StartVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.core.waiter import Waiter
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import WAIT_S, World
from tests.support.owned_vms import create
from tests.support.waiting import eventually


@pytest.fixture
def vm(vm_world: World) -> Vm:
    return create(vm_world)


def committing(world: World, vm: Vm) -> Waiter:
    """A commit that has begun to read the disk, and waits at the gate."""
    world.image_tools.gate.close()
    waiter = world.supervisor.submit(CommitVm("mine", vm.id))
    world.image_tools.gate.wait_reached()
    return waiter


def queued(world: World, command: Command) -> Waiter:
    """Something else that is wished of the VM; it is in its owner's mailbox when this returns."""
    waiter = world.supervisor.submit(command)
    eventually(lambda: any(one.kind == command.verb for one in world.operations.active()), what="it is wished")
    return waiter


def image_of(world: World) -> str:
    image = world.store.images.by_name("mine")
    assert image is not None
    return world.layout.image_rootfs(image).read_text()


@pytest.mark.parametrize("wish", ["grow", "start", "start that fails", "delete", "forced delete"])
def test_disk_that_is_committed_is_touched_by_nothing_until_it_has_been_read(
    vm_world: World, vmm: FakeVmm, vm: Vm, wish: str
) -> None:
    commands: dict[str, Command] = {
        "grow": GrowVm(vm.id, vm.name, 20480),
        "start": StartVm(vm.id, vm.name),
        "start that fails": StartVm(vm.id, vm.name),
        "delete": DeleteVm(vm.id, vm.name),
        "forced delete": DeleteVm(vm.id, vm.name, force=True),
    }
    if wish == "start that fails":
        vmm.console = "banger: failed: no disk\n"
    commit = committing(vm_world, vm)
    other = queued(vm_world, commands[wish])
    assert not other.answered
    assert (vm_world.layout.vm_dir(vm.id) / "disk").read_text() == ""
    assert vm_world.vm("web").state is VmState.STOPPED
    vm_world.image_tools.gate.open()
    assert commit.wait().source == "commit:web"
    assert image_of(vm_world) == "commit of sha256:alpine"
    if wish == "start that fails":
        with pytest.raises(BangerError, match="no disk"):
            other.wait()
    else:
        other.wait()


def test_commit_that_comes_behind_a_change_reads_what_was_changed(
    vm_world: World, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = holding(vm_world, monkeypatch)
    grow = queued(vm_world, GrowVm(vm.id, vm.name, 20480))
    commit = vm_world.supervisor.submit(CommitVm("mine", vm.id))
    eventually(lambda: any(one.kind == "vm.use-disk" for one in vm_world.operations.active()), what="it waits")
    release.set()
    grow.wait()
    commit.wait()
    assert image_of(vm_world) == "commit of sha256:alpine20480"


def test_commit_whose_vm_is_started_before_its_turn_is_a_conflict_and_makes_nothing(
    vm_world: World, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = holding(vm_world, monkeypatch)
    queued(vm_world, GrowVm(vm.id, vm.name, 20480))
    queued(vm_world, StartVm(vm.id, vm.name))
    commit = vm_world.supervisor.submit(CommitVm("mine", vm.id))
    eventually(lambda: any(one.kind == "vm.use-disk" for one in vm_world.operations.active()), what="it waits")
    release.set()
    with pytest.raises(BangerError, match='VM "web" is running, not stopped') as caught:
        commit.wait()
    assert caught.value.kind is ErrorKind.CONFLICT
    assert vm_world.store.images.by_name("mine") is None
    assert vm_world.leftovers() == []


def test_commit_whose_vm_is_deleted_before_its_turn_finds_none(
    vm_world: World, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = holding(vm_world, monkeypatch)
    queued(vm_world, GrowVm(vm.id, vm.name, 20480))
    queued(vm_world, DeleteVm(vm.id, vm.name))
    commit = vm_world.supervisor.submit(CommitVm("mine", vm.id))
    eventually(lambda: any(one.kind == "vm.use-disk" for one in vm_world.operations.active()), what="it waits")
    release.set()
    with pytest.raises(BangerError) as caught:
        commit.wait()
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert vm_world.store.images.by_name("mine") is None


def test_commit_of_a_vm_that_is_being_made_is_refused_at_once(vm_world: World) -> None:
    """Its owner may wait for the very image that would be made of it."""
    vm_world.images.gate.close()
    made = vm_world.supervisor.submit(CreateVm(new_id(), "web", VmSpec("alpine")))
    vm_world.images.gate.wait_reached()
    with pytest.raises(BangerError, match="is creating, not stopped"):
        vm_world.supervisor.submit(CommitVm("another", vm_world.vm("web").id)).wait()
    vm_world.images.gate.open()
    made.wait()


def test_commit_that_is_given_up_lets_the_next_have_the_disk(vm_world: World, vm: Vm) -> None:
    commit = committing(vm_world, vm)
    start = queued(vm_world, StartVm(vm.id, vm.name))
    commit.leave()
    assert start.wait().state is VmState.RUNNING
    eventually(lambda: not vm_world.operations.active(), what="the commit has ended, too")
    assert vm_world.store.images.by_name("mine") is None
    assert vm_world.leftovers() == []
    vm_world.image_tools.gate.open()


def test_kill_of_a_stopped_vm_does_not_end_the_commit_that_reads_it(vm_world: World, vm: Vm) -> None:
    commit = committing(vm_world, vm)
    kill = queued(vm_world, KillVm(vm.id, vm.name))
    vm_world.image_tools.gate.open()
    assert commit.wait().source == "commit:web"
    assert kill.wait().state is VmState.STOPPED


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ErrorKind.EXHAUSTED),
        (BangerError(ErrorKind.INVALID, "the disk is damaged"), ErrorKind.INVALID),
        (ZeroDivisionError("a bug"), ErrorKind.INTERNAL),
    ],
)
def test_commit_that_fails_is_no_failure_of_the_vms_owner(
    vm_world: World, vm: Vm, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: ErrorKind
) -> None:
    def fail(*_: object) -> object:
        raise error

    monkeypatch.setattr(vm_world.image_tools, "commit", fail)
    crashed: list[str] = []
    told = OwnerActor.on_failure

    def on_failure(actor: OwnerActor, *facts: object) -> None:
        crashed.append(actor.key.kind)
        told(actor, *facts)  # type: ignore[arg-type]

    monkeypatch.setattr(OwnerActor, "on_failure", on_failure)
    with pytest.raises(BangerError) as caught:
        vm_world.do(CommitVm("mine", vm.id))
    assert caught.value.kind is kind
    assert vm_world.do(StartVm(vm.id, vm.name)).state is VmState.RUNNING
    assert "vm" not in crashed


def holding(world: World, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Growing takes until this is set: it holds the VM's owner while the row says that the VM is stopped."""
    release, storage = threading.Event(), world.services.host.storages.named("fake")

    def grow(vm_dir: Path, size_mib: int, operation: Operation) -> None:
        assert release.wait(WAIT_S)
        (vm_dir / "disk").write_text(str(size_mib))

    monkeypatch.setattr(storage, "grow", grow)
    return release
