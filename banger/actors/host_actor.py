"""The owner of what has no name of its own: reconciling the whole installation and collecting orphans."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from loguru import logger

from banger.actors.base import OwnerActor
from banger.actors.messages import Command, DeleteImage, DeleteKernel, Prune, Reconcile, SettleVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel, Vm, VmState
from banger.core.operation import Operation
from banger.host import publish

#: Blobs that nothing touched for so long are pruned, and with ``unused`` for so short.
BLOB_KEPT_S, BLOB_GRACE_S = 7 * 86400.0, 3600.0
#: A directory without a row may be about to get one; only after this long it is nobody's.
GRACE_S = 600.0


@dataclass(slots=True)
class ReconcileReport:
    """What a reconcile did, as lines for people. Empty lists: nothing was to do."""

    adopted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


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
                return self._reconcile(command, operation)
            case Prune():
                return self._prune(command, operation)
        raise TypeError(f"the host's owner cannot do {command.verb}")

    def _reconcile(self, command: Reconcile, operation: Operation) -> ReconcileReport:
        report = ReconcileReport()
        with operation.step("settle VMs"):
            self._settle_vms(report, operation, at_start=command.at_start)
        with operation.step("collect orphans"):
            self._collect(report, operation, at_start=command.at_start)
        done = {name: value for name in ("adopted", "stopped", "removed", "failed") if (value := getattr(report, name))}
        if done:
            logger.info("reconcile: {}", "; ".join(f"{name} {', '.join(lines)}" for name, lines in done.items()))
        return report

    def _settle_vms(self, report: ReconcileReport, operation: Operation, *, at_start: bool) -> None:
        """Settle every VM that may need it, in parallel; one that fails does not keep the others from it."""
        before = [vm for vm in self.services.store.vms.all() if self._may_need_settling(vm)]
        listeners = [(vm, self.services.submit(SettleVm(vm.id, vm.name), operation.deadline)) for vm in before]
        for vm, listener in listeners:
            try:
                after = listener.wait(operation.token)
            except BangerError as error:
                if error.kind is not ErrorKind.CONFLICT:  # busy: whoever works on it leaves it settled
                    report.failed.append(f"{vm.name}: {error}")
                continue
            if after is None:
                report.removed.append(f"VM {vm.name}")
            elif after.state is VmState.RUNNING:
                if at_start:
                    report.adopted.append(vm.name)
            elif after.state is not vm.state:
                report.stopped.append(f"{vm.name} ({after.reason or after.state.value})")

    def _may_need_settling(self, vm: Vm) -> bool:
        return vm.state is not VmState.STOPPED or bool(self.services.store.handles.of(vm.id))

    def _collect(self, report: ReconcileReport, operation: Operation, *, at_start: bool) -> None:
        services, layout = self.services, self.services.layout
        grace_s = 0.0 if at_start else GRACE_S
        if at_start:
            publish.sweep(layout)
        known = {
            layout.data / "images": {image.id for image in services.store.images.all()},
            layout.data / "kernels": {kernel.id for kernel in services.store.kernels.all()},
            layout.data / "vms": {vm.id for vm in services.store.vms.all()},
            layout.run / "vms": {vm.id for vm in services.store.vms.all()},
        }
        for parent, ids in known.items():
            for orphan in _older_than(parent, grace_s):
                if orphan.name not in ids:
                    publish.discard(orphan, layout)
                    report.removed.append(str(orphan))
        self._collect_nameless(report, operation)

    def _collect_nameless(self, report: ReconcileReport, operation: Operation) -> None:
        """Content that a moved tag left behind goes when the last VM that used it is gone."""
        store = self.services.store
        commands: list[Command] = [
            *(DeleteImage(i.id, i.id) for i in store.images.nameless() if not store.vms.using_image(i.id)),
            *(DeleteKernel(k.id, k.id) for k in store.kernels.nameless() if not store.vms.using_kernel(k.id)),
        ]
        for command in commands:
            try:
                self.ask_owner(command, operation)
            except BangerError as error:
                report.failed.append(f"{command.subject}: {error}")
            else:
                report.removed.append(f"{command.key}")

    # -- prune -----------------------------------------------------------------------------------------

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
        for blob in _older_than(self.services.layout.blobs / "sha256", age_s):
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


def _older_than(parent: Path, grace_s: float) -> list[Path]:
    """Entries of ``parent`` whose inode last changed (a rename counts) more than ``grace_s`` ago."""
    limit = time.time() - grace_s
    found = []
    for path in parent.iterdir() if parent.exists() else ():
        try:
            if path.lstat().st_ctime <= limit:
                found.append(path)
        except FileNotFoundError:
            continue
    return found
