"""Commands to the owner of a VM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from banger.actors.messages.commands import Command, OwnerKey, OwnerKind
from banger.core.models import ProcessIdentity, Vm
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.core.ports import SavedMachine
from banger.core.suspension import USER
from banger.core.wire.vm_spec import VmSpec


@dataclass(frozen=True, slots=True)
class VmCommand(Command):
    """A command to the owner of one VM; answers the :class:`~banger.core.models.Vm` unless it says otherwise."""

    vm_id: str
    vm_name: str

    @property
    def key(self) -> OwnerKey:
        """The VM's owner."""
        return OwnerKey(OwnerKind.VM, self.vm_id)

    @property
    def subject(self) -> str:
        """The VM's name."""
        return self.vm_name


@dataclass(frozen=True, slots=True)
class CreateVm(VmCommand):
    """Make a VM from its spec; with ``start``, start it too, and leave nothing behind if that fails.

    With ``origin`` its disk begins as that of a snapshot, and if that has a machine, the start goes on with it.
    ``attended``: a session of this daemon holds it, which began before this was requested. ``is_name_made_up``: nobody
    chose the name, so that another one will do if it is taken by the time that it is claimed. ``makes_template``: the
    key of the template that it is booted for.
    """

    verb: ClassVar[str] = "vm.create"
    joinable: ClassVar[bool] = False
    spec: VmSpec
    owner_uid: int = 0
    start: bool = False
    attended: bool = False
    is_name_made_up: bool = False
    origin: Origin | None = None
    makes_template: str = ""

    def __hash__(self) -> int:
        return hash(self.vm_id)  # the spec's labels are a mapping


@dataclass(frozen=True, slots=True)
class StartVm(VmCommand):
    """Start it; one that runs is left alone, and one that is suspended goes on.

    ``again``: by banger itself, and only if that is still due. ``cold``: it boots, whatever it was suspended to.
    """

    verb: ClassVar[str] = "vm.start"
    again: bool = False
    cold: bool = False


@dataclass(frozen=True, slots=True)
class SuspendVm(VmCommand):
    """Save its machine to the disk and end it; a start goes on from there. One that is suspended is left alone.

    ``by``: see :mod:`banger.core.suspension`; by banger only if nobody uses it by then. ``reason`` is for people.
    """

    verb: ClassVar[str] = "vm.suspend"
    by: str = USER
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WakeVm(VmCommand):
    """Let it go on if it is suspended, for somebody who has to do with its guest.

    Answers a VM that runs; ``conflict`` if it is neither suspended nor running by then.
    """

    verb: ClassVar[str] = "vm.wake"


@dataclass(frozen=True, slots=True)
class RestartVm(VmCommand):
    """Stop it as :class:`StopVm` does, if it runs, and start it: nothing comes between the two."""

    verb: ClassVar[str] = "vm.restart"
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class StopVm(VmCommand):
    """Ask the guest to power off, wait ``timeout_s`` (None: as long as its owner knows it may take), then kill."""

    verb: ClassVar[str] = "vm.stop"
    makes_room: ClassVar[bool] = True
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class KillVm(VmCommand):
    """End it at once."""

    verb: ClassVar[str] = "vm.kill"
    makes_room: ClassVar[bool] = True

    @property
    def overtakes(self) -> bool:
        """It ends what a stop waits for, and what a start does."""
        return True


@dataclass(frozen=True, slots=True)
class PauseVm(VmCommand):
    """Stop its CPUs where they are. ``by`` is ``user`` or ``guard``."""

    verb: ClassVar[str] = "vm.pause"
    makes_room: ClassVar[bool] = True
    by: str = "user"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ResumeVm(VmCommand):
    """Let a paused one go on. By ``guard``: only if it is still the guard that paused it."""

    verb: ClassVar[str] = "vm.resume"
    by: str = "user"


@dataclass(frozen=True, slots=True, eq=False)
class UseDisk(VmCommand):
    """Let ``work`` have the disk of a stopped one; answers what it returns.

    Who is not the VM's owner reads or writes its disk by this alone: whatever else uses it (a start, growing, deleting)
    comes before or after. ``work`` is given the VM, the directory that its disk is in and the operation that it is part
    of, in the thread of the VM's owner; see :func:`banger.actors.disk_use.use_disk`.
    """

    verb: ClassVar[str] = "vm.use-disk"
    joinable: ClassVar[bool] = False
    work: Callable[[Vm, Path, Operation], object]


@dataclass(frozen=True, slots=True)
class SaveVm(VmCommand):
    """Write what a snapshot is made of into ``into``; answers a :class:`SavedVm`.

    Its two directories are there (:func:`banger.core.origin.disk_in`, ``machine_in``), empty and private.

    Nothing in it is synced. A running VM goes on, whatever happens; if this fails, ``into`` is to be thrown away.
    """

    verb: ClassVar[str] = "vm.save"
    joinable: ClassVar[bool] = False
    into: Path


@dataclass(frozen=True, slots=True)
class RewindVm(VmCommand):
    """Have it go on, in its place, from a snapshot of itself: from the newest one if ``snapshot_id`` is empty."""

    verb: ClassVar[str] = "vm.rewind"
    joinable: ClassVar[bool] = False
    snapshot_id: str = ""
    snapshot_name: str = ""


@dataclass(frozen=True, slots=True)
class SavedVm:
    """A VM as it was at the instant at which it was saved; ``machine`` is None if it was stopped."""

    vm: Vm
    machine: SavedMachine | None


@dataclass(frozen=True, slots=True)
class GrowVm(VmCommand):
    """Make the disk of a stopped one larger: ``disk_mib`` is the new size."""

    verb: ClassVar[str] = "vm.grow"
    disk_mib: int


@dataclass(frozen=True, slots=True)
class KeepVm(VmCommand):
    """Let it stay when what has held it so far is over: it is no longer attended."""

    verb: ClassVar[str] = "vm.keep"


@dataclass(frozen=True, slots=True)
class DeleteVm(VmCommand):
    """Remove it and its disk; with ``force`` also while it runs.

    Its home disk goes too only if ``keep_home`` is false, which only a user may ask for. ``lost``: its guest has not
    answered any more, so it may be ending just now, and how is worth to know.
    """

    verb: ClassVar[str] = "vm.delete"
    makes_room: ClassVar[bool] = True
    force: bool = False
    keep_home: bool = True
    lost: bool = False

    @property
    def overtakes(self) -> bool:
        """With ``force`` it kills."""
        return self.force


@dataclass(frozen=True, slots=True)
class ReconcileVm(VmCommand):
    """Make row, ledger and host agree: adopt what lives, finish or undo what was half done.

    ``exited`` names a process that is known to have ended. Without it the
    command is refused while the owner is busy: whoever works on the VM leaves it in order.
    """

    verb: ClassVar[str] = "vm.reconcile"
    background: ClassVar[bool] = True
    exited: ProcessIdentity | None = None

    @property
    def yields(self) -> bool:
        """A routine look yields; news of an exit must be heard."""
        return self.exited is None
