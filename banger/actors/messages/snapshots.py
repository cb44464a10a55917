"""Commands to the owner of a snapshot name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from banger.actors.messages.commands import Command, OwnerKey, OwnerKind
from banger.core.wire.port_forward import PortForward


@dataclass(frozen=True, slots=True)
class SnapshotCommand(Command):
    """A command to the owner of one snapshot name."""

    name: str

    @property
    def key(self) -> OwnerKey:
        """The snapshot name's owner."""
        return OwnerKey(OwnerKind.SNAPSHOT, self.name)


@dataclass(frozen=True, slots=True)
class CreateSnapshot(SnapshotCommand):
    """Take a snapshot of a VM, which goes on; answers the :class:`~banger.core.models.Snapshot`.

    ``stop``: the VM is ended once the snapshot is there. ``is_name_made_up``: nobody chose the name, so that another
    one will do if it is taken by then. ``is_checkpoint``: older checkpoints of the VM may go then.
    """

    verb: ClassVar[str] = "snapshot.create"
    joinable: ClassVar[bool] = False
    vm_id: str
    vm_name: str
    owner_uid: int = 0
    stop: bool = False
    is_name_made_up: bool = False
    is_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class DeleteSnapshot(SnapshotCommand):
    """Delete it, unless a VM is being made from it now; VMs that were need it no more."""

    verb: ClassVar[str] = "snapshot.delete"
    makes_room: ClassVar[bool] = True
    snapshot_id: str


@dataclass(frozen=True, slots=True)
class ExportSnapshot(SnapshotCommand):
    """Write it to a new file; answers ``{"path", "size_bytes"}``."""

    verb: ClassVar[str] = "snapshot.export"
    snapshot_id: str
    target: str


@dataclass(frozen=True, slots=True)
class ImportSnapshot(SnapshotCommand):
    """Take in what was exported; answers the :class:`~banger.core.models.Snapshot`."""

    verb: ClassVar[str] = "snapshot.import"
    source: str
    owner_uid: int = 0


@dataclass(frozen=True, slots=True)
class Copy:
    """A VM to make from a snapshot."""

    vm_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ForkVm(SnapshotCommand):
    """Make running VMs from one instant of a VM, all or none of them; answers them in the order of ``copies``.

    The instant is that of a snapshot, or now if ``snapshot_id`` is empty: of the VM ``vm_id`` then. ``name`` is nobody
    else's, so that forking one thing twice goes on at once.
    """

    verb: ClassVar[str] = "vm.fork"
    joinable: ClassVar[bool] = False
    subject_name: str
    vm_id: str
    snapshot_id: str
    copies: tuple[Copy, ...]
    ports: tuple[PortForward, ...] = ()
    owner_uid: int = 0

    @property
    def subject(self) -> str:
        """What is forked."""
        return self.subject_name
