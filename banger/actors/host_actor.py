"""The owner of what has no name of its own: reconciling the whole installation and collecting orphans."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from loguru import logger

from banger.actors.base import OwnerActor
from banger.actors.messages import Command, DeleteImage, DeleteKernel, Prune, Reconcile, SettleVm
from banger.actors.orphans import CACHED_GRACE_S, CACHED_S, GRACE_S, Orphans, Stale, occupied
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel, Vm, VmState
from banger.core.operation import Operation


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
        orphans = self._orphans
        if at_start:
            orphans.sweep()
        report.removed += map(str, orphans.directories(0.0 if at_start else GRACE_S))
        for stale in orphans.blobs(CACHED_S, parts_only=True):  # nobody came back to resume it
            if orphans.remove_blob(stale):
                report.removed.append(stale.what)
        for stale in orphans.toolboxes(CACHED_S):
            if orphans.remove_toolbox(stale):
                report.removed.append(stale.what)
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
            size = occupied(directory)
            try:
                if not command.dry_run:
                    self.ask_owner(delete, operation)
            except BangerError as error:  # taken into use meanwhile
                report.kept.append(f"{value.name or value.id}: {error}")
            else:
                report.removed.append(f"{delete.key.kind.value} {value.name or value.id}")
                report.freed_bytes += size
        self._prune_caches(command, report)
        return report

    def _prune_caches(self, command: Prune, report: PruneReport) -> None:
        """What only saves time: downloads, and toolboxes that no start used lately."""
        orphans, age_s = self._orphans, CACHED_GRACE_S if command.unused else CACHED_S
        for stale in orphans.blobs(age_s) if "image" in command.nouns else ():
            if command.dry_run or orphans.remove_blob(stale):
                report.add(stale)
        for stale in orphans.toolboxes(age_s) if "kernel" in command.nouns else ():
            if command.dry_run or orphans.remove_toolbox(stale):
                report.add(stale)
