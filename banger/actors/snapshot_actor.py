"""The owner of one snapshot name: taking, forking and deleting are serialised in its mailbox."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger

from banger.actors.artifact_owner import ArtifactOwner
from banger.actors.forks import make_forks
from banger.actors.messages import (
    Command,
    CreateSnapshot,
    DeleteSnapshot,
    ExportSnapshot,
    ForkVm,
    ImportSnapshot,
    KillVm,
    SavedVm,
    SaveVm,
)
from banger.actors.origins import kept
from banger.actors.snapshot_records import remove_record, write_record
from banger.actors.snapshot_rows import snapshot_row
from banger.actors.snapshot_transfer import export_snapshot, needs_of, taken_in
from banger.core import lookup
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.forking import numbered_name
from banger.core.identity import RenewalEvent
from banger.core.models import Snapshot, Vm
from banger.core.operation import Operation
from banger.core.origin import Origin, disk_in, machine_in
from banger.core.snapshot_rules import checkpoint_name, surplus_checkpoints
from banger.core.units import MIB


class SnapshotActor(ArtifactOwner):
    """Owns one snapshot name, or one fork."""

    def handle(self, command: Command, operation: Operation) -> Any:
        """Dispatch."""
        match command:
            case CreateSnapshot():
                return self._create(command, operation)
            case ForkVm(snapshot_id=""):
                return self._fork_vm(command, operation)
            case ForkVm():
                return self._fork_snapshot(command, operation)
            case DeleteSnapshot():
                return self._delete(command, operation)
            case ExportSnapshot():
                return self._export(command, operation)
            case ImportSnapshot():
                return self._import(command, operation)
        raise TypeError(f"a snapshot's owner cannot do {command.verb}")

    def _create(self, command: CreateSnapshot, operation: Operation) -> Snapshot:
        name, store = self._free_name(command), self.services.store
        with self.building("snapshot", operation) as staged:
            crashpoint("snapshot.create:staging-made")
            snapshot = self._saved(command, name, staged, operation)
            crashpoint("snapshot.create:saved")
            with operation.step("publish"):
                write_record(staged, snapshot)
                self.publish(store.snapshots, snapshot, staged, self.services.layout.snapshot_dir, operation)
        if command.stop:
            self.ask_owner(KillVm(command.vm_id, command.vm_name), operation)
        if command.is_checkpoint:
            crashpoint("snapshot.create:checkpoint-published")
            self._thin_out(snapshot, operation)
        return snapshot

    def _thin_out(self, newest: Snapshot, operation: Operation) -> None:
        """Delete the oldest checkpoints of a VM, now that there is this one. One that is in use goes later."""
        config, snapshots = self.services.config, self.services.store.snapshots
        keep, most_bytes = config.number("snapshot.checkpoints"), config.number("snapshot.checkpoints_mib") * MIB
        for old in surplus_checkpoints(snapshots.all(), newest, keep, most_bytes):
            try:
                self.ask_owner(DeleteSnapshot(old.name, old.id), operation)
            except BangerError as error:
                logger.info("checkpoint {} stays: {}", old.name, error)

    def _saved(self, command: CreateSnapshot | ForkVm, name: str, staged: Path, operation: Operation) -> Snapshot:
        """Have the VM saved into ``staged``; the row of that."""
        found = self.services.store.vms.get(command.vm_id)
        if found is None:
            raise lookup.not_found(command.subject, "vm", [])
        for directory in (disk_in(staged), machine_in(staged)):
            directory.mkdir(mode=0o700)
        saved: SavedVm = self.ask_owner(SaveVm(found.id, found.name, staged), operation)
        is_checkpoint = isinstance(command, CreateSnapshot) and command.is_checkpoint
        return replace(snapshot_row(saved, staged, name, command.owner_uid), is_checkpoint=is_checkpoint)

    def _free_name(self, command: CreateSnapshot) -> str:
        snapshots, name = self.services.store.snapshots, command.name
        if snapshots.by_name(name) is None:
            return name
        if command.is_name_made_up:
            named = checkpoint_name if command.is_checkpoint else numbered_name
            return named(command.vm_name, {snapshot.name for snapshot in snapshots.all()})
        self._check_free(name)
        return name

    def _fork_vm(self, command: ForkVm, operation: Operation) -> list[Vm]:
        """Save the VM where nobody finds it, and go on from there; what is left of that goes with the operation."""
        with self.building("fork", operation) as staged:
            snapshot = self._saved(command, "", staged, operation)
            crashpoint("vm.fork:saved")
            return make_forks(self.services, Origin(snapshot, staged, RenewalEvent.FORK), command, operation)

    def _fork_snapshot(self, command: ForkVm, operation: Operation) -> list[Vm]:
        snapshot = self._present(command.snapshot_id, command.subject)
        origin = Origin(snapshot, self.services.layout.snapshot_dir(snapshot.id))
        with kept(self.services, origin, operation):
            return make_forks(self.services, origin, command, operation)

    def _delete(self, command: DeleteSnapshot, operation: Operation) -> dict[str, Any]:
        snapshots = self.services.store.snapshots
        snapshot = self._present(command.snapshot_id, command.name)
        directory_of = self.services.layout.snapshot_dir
        with operation.step("delete snapshot"):
            remove_record(directory_of(snapshot.id))
            crashpoint("snapshot.delete:record-gone")
            try:
                self.remove(snapshots, snapshot, directory_of)
            except BangerError:  # it is in use
                with suppress(OSError):
                    write_record(directory_of(snapshot.id), snapshot)
                raise
        return {"id": snapshot.id, "name": snapshot.name}

    def _export(self, command: ExportSnapshot, operation: Operation) -> dict[str, Any]:
        """Its owner does it, so that it is not deleted meanwhile."""
        target = Path(command.target)
        export_snapshot(self.services, self._present(command.snapshot_id, command.name), target, operation)
        return {"path": command.target, "size_bytes": target.stat().st_size}

    def _import(self, command: ImportSnapshot, operation: Operation) -> Snapshot:
        store, source = self.services.store, Path(command.source)
        self._check_free(command.name)
        record, image, kernel = needs_of(self.services, source, operation)
        with self.building("snapshot", operation) as staged:
            self.services.artifacts.snapshot_archives.unpack(source, staged, operation)
            crashpoint("snapshot.import:unpacked")
            snapshot = taken_in(record, image, kernel, command.name, command.owner_uid, staged)
            with operation.step("publish"):
                write_record(staged, snapshot)
                self.publish(store.snapshots, snapshot, staged, self.services.layout.snapshot_dir, operation)
        return snapshot

    def _check_free(self, name: str) -> None:
        if self.services.store.snapshots.by_name(name) is not None:
            raise BangerError(
                ErrorKind.ALREADY_EXISTS, f'snapshot "{name}" already exists', subject=name,
                hint=f"banger snapshot delete {name}",
            )  # fmt: skip

    def _present(self, snapshot_id: str, name: str) -> Snapshot:
        snapshot = self.services.store.snapshots.get(snapshot_id)
        if snapshot is None:
            raise lookup.not_found(name, "snapshot", [])
        return snapshot
