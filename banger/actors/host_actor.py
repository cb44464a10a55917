"""The owner of the installation as a whole: reconcile and prune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from banger.actors.base import OwnerActor
from banger.actors.host_reconcile import HostReconciler, ReconcileReport
from banger.actors.messages import (
    Command,
    DeleteImage,
    DeleteKernel,
    DeleteSnapshot,
    DeleteTemplate,
    Prune,
    ReconcileHost,
)
from banger.actors.orphans import CACHED_GRACE_S, CACHED_S, Orphans, Stale, occupied
from banger.core import clock
from banger.core.errors import BangerError
from banger.core.models import Image, Kernel, Snapshot
from banger.core.operation import Operation
from banger.core.snapshot_rules import prunable
from banger.core.templates import Template


@dataclass(slots=True)
class PruneReport:
    """What a prune removed (or, on a dry run, would remove), and the bytes that this frees."""

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    freed_bytes: int = 0

    def add(self, stale: Stale) -> None:
        """Count one entry of a cache."""
        self.removed.append(stale.what)
        self.freed_bytes += stale.freed_bytes


class HostActor(OwnerActor):
    """Owns the installation as a whole."""

    @property
    def _orphans(self) -> Orphans:
        return Orphans(self.services.layout, self.services.store)

    def handle(self, command: Command, operation: Operation) -> ReconcileReport | PruneReport:
        """Dispatch."""
        match command:
            case ReconcileHost():
                ask = lambda wanted: self.ask_owner(wanted, operation)  # noqa: E731  # bound to this operation
                return HostReconciler(self.services, command, operation, ask).run()
            case Prune():
                return self._prune(command, operation)
        raise TypeError(f"the host's owner cannot do {command.verb}")

    def _prune(self, command: Prune, operation: Operation) -> PruneReport:
        report, store = PruneReport(), self.services.store
        if "snapshot" in command.nouns:  # first: they use images and kernels
            directory_of = self.services.layout.snapshot_dir
            found = prunable(store.snapshots.all(), command.snapshots, clock.now(), {vm.id for vm in store.vms.all()})
            doomed = [(one, DeleteSnapshot(one.name, one.id), directory_of(one.id)) for one in found]
            self._delete_each(doomed, command, report, operation)
        candidates: list[tuple[Image | Kernel | Template, Command, Path]] = []
        if "image" in command.nouns:
            candidates += [
                (image, DeleteImage(image.name or image.id, image.id), self.services.layout.image_dir(image.id))
                for image in store.images.all()
                if not store.users_of_image(image.id) and (not image.name or (command.unused and image.managed))
            ]
        if "kernel" in command.nouns:
            candidates += [
                (kernel, DeleteKernel(kernel.name or kernel.id, kernel.id), self.services.layout.kernel_dir(kernel.id))
                for kernel in store.kernels.all()
                if not store.users_of_kernel(kernel.id) and (not kernel.name or command.unused)
            ]
        if "template" in command.nouns and command.unused:  # they only save time, too, but of the starts to come
            candidates += [
                (one, DeleteTemplate(one.key, one.id, "it was pruned"), self.services.layout.template_dir(one.id))
                for one in store.templates.all()
            ]
        self._delete_each(candidates, command, report, operation)
        self._prune_caches(command, report)
        if "evidence" in command.nouns:
            for what, size in self.services.host.evidence.prune(every=command.unused, dry_run=command.dry_run):
                report.add(Stale(what, self.services.layout.evidence, size))
        return report

    def _delete_each(
        self,
        candidates: Sequence[tuple[Image | Kernel | Snapshot | Template, Command, Path]],
        command: Prune,
        report: PruneReport,
        operation: Operation,
    ) -> None:
        for value, delete, directory in candidates:
            size = occupied(directory)
            try:
                if not command.dry_run:
                    self.ask_owner(delete, operation)
            except BangerError as error:  # taken into use meanwhile
                report.kept.append(f"{value.name or value.id}: {error}")
            else:
                report.removed.append(f"{delete.key.kind.value} {value.name or value.id}")
                report.freed_bytes += size

    def _prune_caches(self, command: Prune, report: PruneReport) -> None:
        """What only saves time: downloads, and toolboxes that no start used lately."""
        orphans, age_s = self._orphans, CACHED_GRACE_S if command.unused else CACHED_S
        for stale in orphans.blobs(age_s) if "image" in command.nouns else ():
            if command.dry_run or orphans.remove_blob(stale):
                report.add(stale)
        for stale in orphans.toolboxes(age_s) if "kernel" in command.nouns else ():
            if command.dry_run or orphans.remove_toolbox(stale):
                report.add(stale)
