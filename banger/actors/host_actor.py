"""The owner of what has no name of its own: reconciling the whole installation and collecting orphans."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from loguru import logger

from banger.actors.base import OwnerActor
from banger.actors.messages import Command, DeleteImage, DeleteKernel, Reconcile, SettleVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.operation import Operation
from banger.host import publish

#: A directory without a row may be about to get one; only after this long it is nobody's.
GRACE_S = 600.0


@dataclass(slots=True)
class ReconcileReport:
    """What a reconcile did, as lines for people. Empty lists: nothing was to do."""

    adopted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class HostActor(OwnerActor):
    """Owns the installation as a whole."""

    def handle(self, command: Command, operation: Operation) -> ReconcileReport:
        """Reconcile."""
        if not isinstance(command, Reconcile):
            raise TypeError(f"the host's owner cannot do {command.verb}")
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
