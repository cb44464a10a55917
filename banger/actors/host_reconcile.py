"""Reconciling the whole installation: VMs, shared objects, and orphans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from loguru import logger

from banger.actors.inventory import is_held, leaks
from banger.actors.messages import Command, DeleteImage, DeleteKernel, ReconcileHost, ReconcileVm
from banger.actors.orphans import CACHED_S, GRACE_S, Orphans
from banger.actors.services import Services
from banger.actors.snapshot_records import lost_snapshots
from banger.actors.vm_reconcile import observe, recorded_vm, standstill
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.names import vmm_marker
from banger.core.operation import Operation
from banger.core.ports import HostObject
from banger.core.reconcile_action import ReconcileAction
from banger.core.waiter import Waiter
from banger.host import publish

#: Owners at work at once: enough that a VMM which does not answer holds up no other, and few enough that their threads
#: do not spend their time on waiting for each other.
_AT_ONCE = 32
_POLL_S = 0.1


@dataclass(slots=True)
class ReconcileReport:
    """What a reconcile did (or, on a dry run, would do), as lines for people. Empty lists: nothing was to do."""

    adopted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = ((one.name, getattr(self, one.name)) for one in fields(self))
        return "; ".join(f"{name} {', '.join(lines)}" for name, lines in parts if lines)


class HostReconciler:
    """One reconcile, in the host owner's thread."""

    def __init__(
        self, services: Services, command: ReconcileHost, operation: Operation, ask: Callable[[Command], object]
    ) -> None:
        self._services = services
        self._operation = operation
        self._ask = ask
        self._at_start = command.at_start
        self._dry = command.dry_run
        self._grace_s = 0.0 if command.at_start else GRACE_S
        self._object_grace_s = 0.0 if command.fix else self._grace_s
        self._report = ReconcileReport()

    def run(self) -> ReconcileReport:
        """Do all of it; a part that fails is reported and does not keep the others from being done."""
        with self._operation.step("find lost VMs"):
            self._recover_rows()
            self._recover_snapshots()
        with self._operation.step("reconcile VMs"):
            self._forecast_vms() if self._dry else self._reconcile_vms()
        with self._operation.step("refresh what is shared"):
            self._refresh()
        with self._operation.step("collect orphans"):
            self._collect_objects()
            self._collect_directories()
            self._collect_nameless()
        if text := str(self._report):
            logger.info("reconcile{}: {}", " (dry run)" if self._dry else "", text)
        return self._report

    # -- VMs -------------------------------------------------------------------------------------------

    def _recover_rows(self) -> None:
        """A VM's directory without a row means that the store is older than the disk: take the VM in again."""
        store, layout = self._services.store, self._services.layout
        # The directories are looked at before the rows: a VM that is being created has its row first, and one that is
        # being deleted loses it last.
        there = sorted(path.name for path in _entries(layout.data / "vms"))
        known = {vm.id for vm in store.vms.all()}
        for vm_id in there:
            vm = recorded_vm(self._services, vm_id) if vm_id not in known else None
            if vm is None:
                continue
            with self._reported(f"VM {vm.name}"):
                if not self._dry:
                    store.vms.insert(self._insertable(vm))
                    crashpoint("reconcile.recover:row-written")
                self._report.recovered.append(vm.name)

    def _recover_snapshots(self) -> None:
        """The same for snapshots."""
        for snapshot in lost_snapshots(self._services.layout, self._services.store):
            with self._reported(f"snapshot {snapshot.name}"):
                if not self._dry:
                    self._services.store.snapshots.insert(snapshot)
                    crashpoint("reconcile.recover:snapshot-row-written")
                self._report.recovered.append(f"snapshot {snapshot.name}")

    def _insertable(self, vm: Vm) -> Vm:
        """The recorded VM as a row that the store takes: its name free, its image and kernel there or left empty."""
        store = self._services.store
        name = vm.name if store.vms.by_name(vm.name) is None else f"{vm.name[:35]}-{vm.id[:4]}"
        return replace(
            vm,
            name=name,
            image_id=vm.image_id if store.images.get(vm.image_id) else "",
            kernel_id=vm.kernel_id if store.kernels.get(vm.kernel_id) else "",
        )

    def _reconcile_vms(self) -> None:
        """Reconcile every VM that may need it, some at a time."""
        before = [vm for vm in self._services.store.vms.all() if self._may_need_it(vm)]
        for vm, waiter in self._asked(before):
            try:
                after = waiter.wait(self._operation.token)
            except BangerError as error:
                if error.kind is not ErrorKind.CONFLICT:  # busy: whoever works on it leaves it in order
                    self._report.failed.append(f"{vm.name}: {error}")
                continue
            if after is None:
                self._report.removed.append(f"VM {vm.name}")
            elif after.state in (VmState.RUNNING, VmState.PAUSED):
                if self._at_start:
                    self._report.adopted.append(vm.name)
                if after.state is VmState.PAUSED and vm.state is VmState.RUNNING:
                    self._report.stopped.append(after.reason)
            elif after.state is not vm.state:
                self._report.stopped.append(f"{vm.name} ({after.reason or after.state.value})")

    def _asked(self, vms: Sequence[Vm]) -> list[tuple[Vm, Waiter]]:
        """Ask the owners of ``vms``, always so many at a time that have not answered."""
        places, asked = threading.Semaphore(_AT_ONCE), []
        for vm in vms:
            while not places.acquire(timeout=_POLL_S):
                self._operation.token.raise_if_cancelled()
                self._operation.deadline.raise_if_expired("waiting to reconcile VMs")
            waiter = self._services.submit(ReconcileVm(vm.id, vm.name), self._operation.deadline)
            waiter.when_answered(places.release)
            asked.append((vm, waiter))
        return asked

    def _forecast_vms(self) -> None:
        for vm in self._services.store.vms.all():
            if not self._may_need_it(vm):
                continue
            seen = observe(self._services, vm)
            what = seen.action
            if what in (ReconcileAction.ERASE, ReconcileAction.REMOVE_ABANDONED):
                self._report.removed.append(f"VM {vm.name}")
            elif what is ReconcileAction.ADOPT:
                if self._at_start:
                    self._report.adopted.append(vm.name)
                if vm.state is VmState.RUNNING and (words := standstill(vm, seen)):
                    self._report.stopped.append(words)
            elif what is not ReconcileAction.NOTHING:
                self._report.stopped.append(f"{vm.name} ({what.value})")

    def _may_need_it(self, vm: Vm) -> bool:
        if vm.state is not VmState.STOPPED or vm.attended or self._services.host.ledger.of(vm.id).of():
            return True
        # A store that is older than the disk may take a VM for stopped that runs.
        return self._at_start and bool(self._services.host.ledger.recorded(vm.id).handles)

    # -- the host --------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        if self._dry:
            return
        live = [vm for vm in self._services.store.vms.all() if vm.state in (VmState.RUNNING, VmState.PAUSED)]
        for capability in self._services.host.capabilities:
            with self._reported(capability.name):
                capability.refresh(live)

    def _collect_objects(self) -> None:
        stray: list[HostObject] = []
        with self._reported("objects on the host"):
            stray = leaks(self._services, self._object_grace_s)
        for found in stray:
            with self._reported(f"{found.kind} {found.key}"):
                if not self._dry:
                    if is_held(self._services, found):  # by a VM that has started since
                        continue
                    if self._is_lived_in(f"{found.kind} {found.key}", found.vm_id):
                        continue
                    found.remove()
                self._report.removed.append(f"{found.kind} {found.key}")

    def _collect_directories(self) -> None:
        orphans = Orphans(self._services.layout, self._services.store)
        if self._at_start and not self._dry:
            with self._reported("staging and trash"):
                orphans.sweep()
        for path in orphans.directories(self._grace_s):
            with self._reported(str(path)):
                if path.parent.name != "vms" or not self._is_lived_in(str(path), path.name):
                    if not self._dry:
                        publish.discard(path, self._services.layout)
                    self._report.removed.append(str(path))
        with self._reported("evidence"):
            self._report.removed += [what for what, _ in self._services.host.evidence.prune(dry_run=self._dry)]
        caches = (
            (orphans.blobs(CACHED_S, parts_only=True), orphans.remove_blob),  # nobody came back to resume it
            (orphans.toolboxes(CACHED_S), orphans.remove_toolbox),
        )
        for found, remove in caches:
            for stale in found:
                with self._reported(stale.what):
                    if self._dry or remove(stale):
                        self._report.removed.append(stale.what)

    def _is_lived_in(self, what: str, vm_id: str) -> bool:
        """True, and reported, if a VMM that no row places may use this: nothing of it is touched."""
        identity = self._services.vms.vmms.processes.find(vmm_marker(vm_id)) if vm_id else None
        if identity is None:
            return False
        self._report.failed.append(
            f"{what}: process {identity.pid} runs a VM whose record cannot be read; end it to have it removed"
        )
        return True

    def _collect_nameless(self) -> None:
        """Content that a moved tag left behind goes when the last that used it is gone."""
        store = self._services.store
        commands: list[Command] = [
            *(DeleteImage(i.id, i.id) for i in store.images.nameless() if not store.users_of_image(i.id)),
            *(DeleteKernel(k.id, k.id) for k in store.kernels.nameless() if not store.users_of_kernel(k.id)),
        ]
        for command in commands:
            with self._reported(command.subject):
                if not self._dry:
                    self._ask(command)
                self._report.removed.append(f"{command.key}")

    def _reported(self, subject: str) -> _Reported:
        return _Reported(self._report.failed, subject)


class _Reported:
    """A block whose expected failures become a line of the report."""

    def __init__(self, lines: list[str], subject: str) -> None:
        self._lines = lines
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, BangerError | OSError | ExceptionGroup):
            self._lines.append(f"{self._subject}: {error}")
            return True
        return False


def _entries(parent: Path) -> Iterator[Path]:
    return iter(parent.iterdir()) if parent.exists() else iter(())
