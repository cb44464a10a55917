"""The owner of what has no name of its own: the installation as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from banger.actors.base import OwnerActor
from banger.actors.messages import Command, DeleteImage, DeleteKernel, Prune, Reconcile
from banger.actors.reconcile import Reconciler, ReconcileReport, older_than
from banger.core.errors import BangerError
from banger.core.models import Image, Kernel
from banger.core.operation import Operation

#: Blobs that nothing touched for so long are pruned, and with ``unused`` for so short.
BLOB_KEPT_S, BLOB_GRACE_S = 7 * 86400.0, 3600.0


@dataclass(slots=True)
class PruneReport:
    """What a prune removed (or, on a dry run, would remove), and the bytes that this frees."""

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    freed_bytes: int = 0


class HostActor(OwnerActor):
    """Owns the installation as a whole."""

    def handle(self, command: Command, operation: Operation) -> ReconcileReport | PruneReport:
        """Dispatch."""
        match command:
            case Reconcile():
                ask = lambda wish: self.ask_owner(wish, operation)  # noqa: E731  # bound to this operation
                return Reconciler(self.services, command, operation, ask).run()
            case Prune():
                return self._prune(command, operation)
        raise TypeError(f"the host's owner cannot do {command.verb}")

    def _prune(self, command: Prune, operation: Operation) -> PruneReport:
        report, store = PruneReport(), self.services.store
        candidates: list[tuple[Image | Kernel, Command, Path]] = []
        if "image" in command.nouns:
            candidates += [
                (image, DeleteImage(image.name or image.id, image.id), self.services.layout.image_dir(image.id))
                for image in store.images.all()
                if not store.vms.using_image(image.id) and (not image.name or (command.unused and image.managed))
            ]
        if "kernel" in command.nouns:
            candidates += [
                (kernel, DeleteKernel(kernel.name or kernel.id, kernel.id), self.services.layout.kernel_dir(kernel.id))
                for kernel in store.kernels.all()
                if not store.vms.using_kernel(kernel.id) and (not kernel.name or command.unused)
            ]
        for value, delete, directory in candidates:
            size = _occupied(directory)
            try:
                if not command.dry_run:
                    self.ask_owner(delete, operation)
            except BangerError as error:  # taken into use meanwhile
                report.kept.append(f"{value.name or value.id}: {error}")
            else:
                report.removed.append(f"{delete.key.kind.value} {value.name or value.id}")
                report.freed_bytes += size
        if "image" in command.nouns:
            self._prune_blobs(command, report)
        return report

    def _prune_blobs(self, command: Prune, report: PruneReport) -> None:
        """Blobs only save the next pull a download; those touched lately may be in use by a pull right now."""
        age_s = BLOB_GRACE_S if command.unused else BLOB_KEPT_S
        for blob in older_than(self.services.layout.blobs / "sha256", age_s):
            report.freed_bytes += blob.lstat().st_blocks * 512
            report.removed.append(f"blob {blob.name[:12]}")
            if not command.dry_run:
                blob.unlink(missing_ok=True)


def _occupied(directory: Path) -> int:
    """Bytes that removing a directory frees: files with another name elsewhere stay."""
    total = 0
    for path in directory.rglob("*"):
        status = path.lstat()
        total += status.st_blocks * 512 if status.st_nlink == 1 else 0
    return total
