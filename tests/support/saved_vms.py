"""VMs that are saved and go on elsewhere, as the tests of their owners make and look at them.

The memory of a fake machine is a text, and so is its disk: what its guest would write, a test writes.
"""

from __future__ import annotations

from pathlib import Path

from banger.actors.messages import Copy, CreateSnapshot, CreateVm, DeleteSnapshot, ForkVm, RewindVm
from banger.core.forking import forked_spec
from banger.core.models import Snapshot, Vm, VmState
from banger.core.names import new_id
from banger.core.origin import Origin
from banger.core.ports import MEMORY_FILE, RunningGuest
from banger.core.snapshot_rules import checkpoint_name
from tests.support.copied_guest import CopiedGuest
from tests.support.fakes import World


def copied_guests(world: World) -> dict[str, CopiedGuest]:
    """Have a copied guest in every VM that goes on from a saved machine, by id; in others is what was there."""
    guests: dict[str, CopiedGuest] = {}
    others = world.guests.sessions

    def session(vm: Vm) -> RunningGuest:
        is_woken = world.layout.suspended_dir(vm.id).exists()
        is_begun_elsewhere = vm.forked_from or vm.from_template or vm.origin_snapshot or is_woken
        is_copy = (vm.state is VmState.STARTING and is_begun_elsewhere) or bool(vm.makes_template)
        return guests.setdefault(vm.id, CopiedGuest()) if is_copy else others(vm)  # type: ignore[return-value]

    world.guests.sessions = session
    return guests


def write(world: World, vm: Vm, text: str) -> None:
    """Have the guest change its memory and its disk."""
    memory_of(world, vm).write_text(text)
    disk_of(world, vm).write_text(text)


def read(world: World, vm: Vm) -> tuple[str, str]:
    """What it has in its memory and on its disk."""
    return memory_of(world, vm).read_text(), disk_of(world, vm).read_text()


def memory_of(world: World, vm: Vm) -> Path:
    return world.layout.vm_run_dir(vm.id) / MEMORY_FILE


def disk_of(world: World, vm: Vm) -> Path:
    return world.layout.vm_dir(vm.id) / "disk"


def snapshot(world: World, vm: Vm, name: str = "snap", **wishes: bool) -> Snapshot:
    return world.do(CreateSnapshot(name, vm.id, vm.name, **wishes))  # type: ignore[no-any-return]


def keep_checkpoints(world: World, number: int) -> None:
    """Set how many of a VM stay."""
    world.layout.config_file.parent.mkdir(exist_ok=True)
    world.layout.config_file.write_text(f"[snapshot]\ncheckpoints = {number}\n")
    world.restart()


def checkpoint(world: World, vm: Vm) -> Snapshot:
    """As before a command that may be undone."""
    name = checkpoint_name(vm.name, {one.name for one in world.store.snapshots.all()})
    return snapshot(world, vm, name, is_name_made_up=True, is_checkpoint=True)


def rewind(world: World, vm: Vm, taken: Snapshot | None = None) -> Vm:
    return world.do(RewindVm(vm.id, vm.name, taken.id if taken else "", taken.name if taken else ""))  # type: ignore[no-any-return]


def restoring(world: World, taken: Snapshot, name: str, vm_id: str = "") -> CreateVm:
    """The command for a VM from a snapshot."""
    origin = Origin(taken, world.layout.snapshot_dir(taken.id))
    return CreateVm(vm_id or new_id(), name, forked_spec(taken.spec, ()), start=True, origin=origin)


def restore(world: World, taken: Snapshot, name: str) -> Vm:
    return world.do(restoring(world, taken, name))  # type: ignore[no-any-return]


def forking(vm: Vm, *names: str, snapshot_id: str = "") -> ForkVm:
    """The command for forks of a VM, or of a snapshot of it."""
    copies = tuple(Copy(new_id(), name) for name in names)
    return ForkVm(new_id(), vm.name, vm.id, snapshot_id, copies)


def fork(world: World, vm: Vm, *names: str) -> list[Vm]:
    return world.do(forking(vm, *names))  # type: ignore[no-any-return]


def delete_snapshot(world: World, taken: Snapshot) -> None:
    world.do(DeleteSnapshot(taken.name, taken.id))
