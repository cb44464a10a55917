"""The ``dm-snapshot`` driver: a shared image and the VM's changes in a sparse file, combined by the host's kernel.

From below: a loop device that shows the image, read-only, one per VM (the page cache behind is shared all the same, and
nobody has to count users); over it a linear device with zeros after the image, as large as the VM's disk; a loop
device that shows the file with the changes; and the snapshot of the one into the other, which is the VM's root disk.
Both loop devices clear themselves when the device above lets go of them. When the disk is larger than the file
system in it, that is made to fill it before the guest sees it.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import Drive, Fill, VmLedger
from banger.core.units import MIB
from banger.host.cascade import run_all
from banger.posix.files import sync_path
from banger.rootfs.resize import cannot_shrink, fill_disk
from banger.storage.device_mapper import DeviceMapper
from banger.storage.device_names import DeviceNames
from banger.storage.files import ROOT_SERIAL, fill_of, require
from banger.storage.loop_devices import LoopDevices
from banger.storage.snapshot_files import SnapshotFiles, SnapshotGeometry
from banger.storage.snapshot_format import (
    SECTOR_BYTES,
    SnapshotState,
    SnapshotStatus,
    origin_table,
    parse_status,
    snapshot_table,
)


class DmSnapshotStorage:
    """See the module."""

    name = "dm-snapshot"
    root = "direct"
    is_lost_when_host_is_full = True

    def __init__(
        self,
        installation_id: str,
        percent: int = 100,
        mapper: DeviceMapper | None = None,
        loops: LoopDevices | None = None,
    ) -> None:
        """``percent`` of a disk may differ from the image before it overflows; with 100 it never does."""
        self._installation_id = installation_id
        self._percent = percent
        self._mapper = mapper or DeviceMapper()
        self._loops = loops or LoopDevices()

    def create(self, vm_dir: Path, rootfs: Path, size_mib: int, operation: Operation) -> None:  # noqa: ARG002
        """Make the file for the changes. Takes no privilege; the devices come with :meth:`attach`."""
        size = max(size_mib * MIB, _whole_mib(require(rootfs).stat().st_size))
        SnapshotFiles(vm_dir).make(SnapshotGeometry(size, self._percent))

    def attach(self, vm_id: str, vm_dir: Path, rootfs: Path, ledger: VmLedger) -> Sequence[Drive]:
        """Make the devices anew; what an earlier attempt left is taken down first.

        Raises:
            BangerError: ``conflict`` if such a device is in use; ``denied`` without the right to make them;
                ``invalid`` if the changes are lost or the file system is damaged; ``unavailable``; ``not_found``.
        """
        files, names = SnapshotFiles(vm_dir), DeviceNames(self._installation_id, vm_id)
        geometry = files.geometry()
        require(rootfs)
        require(files.changes)
        self._clear_leftovers(names, ledger)
        for kind, key in _handles(names):
            ledger.intend(kind, key)
        try:
            files.touch()
            snapshot = self._make(names, geometry, rootfs, files.changes, ledger)
            self._check(names.snapshot, vm_dir)
            fill_disk(snapshot, geometry.size_bytes)
        except BaseException as error:
            try:
                run_all(self.detach(vm_id, vm_dir, ledger))
            except ExceptionGroup as failures:
                for failure in failures.exceptions:
                    error.add_note(str(failure))
            raise
        return (Drive(snapshot, ROOT_SERIAL, read_only=False),)

    def detach(self, vm_id: str, vm_dir: Path, ledger: VmLedger) -> Sequence[CleanupStep]:  # noqa: ARG002
        """From above to below; nothing if the ledger knows of nothing."""
        names = DeviceNames(self._installation_id, vm_id)
        held = {(handle.kind, handle.key) for handle in ledger.of()}
        if not held & set(_handles(names)):
            return ()
        return self._steps(names, ledger)

    def grow(self, vm_dir: Path, size_mib: int, operation: Operation) -> None:
        """Make the disk larger; its file system follows at the next :meth:`attach`, before the guest sees it."""
        files = SnapshotFiles(vm_dir)
        geometry = files.geometry()
        if size_mib * MIB < geometry.size_bytes:
            raise cannot_shrink(files.changes, geometry.size_bytes, size_mib * MIB)
        with operation.step("grow disk"):
            files.grow(SnapshotGeometry(size_mib * MIB, geometry.percent))

    def freeze(self, vm_id: str, vm_dir: Path, into: Path, token: CancelToken) -> None:
        """Copy the changes, and what the kernel still holds for them; the image below stays the same.

        Raises:
            BangerError: as for every driver; ``invalid`` if the changes are lost.
        """
        name = DeviceNames(self._installation_id, vm_id).snapshot
        if (device := self._mapper.devices().get(name)) is not None:
            sync_path(device)
            self._check(name, vm_dir)
        SnapshotFiles(vm_dir).freeze(into, token)

    def fork(self, generation: Path, vm_dir: Path, operation: Operation) -> None:
        """Copy them again; the devices come with :meth:`attach`."""
        SnapshotFiles(vm_dir).fork(generation, operation.token)

    def remove(self, vm_dir: Path) -> None:
        """Delete the changes."""
        SnapshotFiles(vm_dir).remove()

    def fill(self, vm_id: str, vm_dir: Path) -> Fill:
        """How much of the room for changes is taken: by the kernel's word while the snapshot is there."""
        files = SnapshotFiles(vm_dir)
        try:
            can_overflow = files.geometry().percent < 100
        except BangerError:
            can_overflow = False
        name = DeviceNames(self._installation_id, vm_id).snapshot
        if name in self._mapper.devices():
            status = self.status(vm_id)
            if status.state is SnapshotState.VALID:
                used, total = status.used_sectors * SECTOR_BYTES, status.total_sectors * SECTOR_BYTES
                return Fill(used, total, can_overflow)
            if status.state is not SnapshotState.UNKNOWN:
                total = fill_of(files.changes).total_bytes
                return Fill(total, total, can_overflow, status.state.value)
        idle = fill_of(files.changes)
        return Fill(idle.used_bytes, idle.total_bytes, can_overflow)

    def status(self, vm_id: str) -> SnapshotStatus:
        """What the kernel says of a VM's snapshot; ``UNKNOWN`` if it is not there."""
        try:
            return parse_status(self._mapper.status(DeviceNames(self._installation_id, vm_id).snapshot))
        except OSError:
            return SnapshotStatus(SnapshotState.UNKNOWN)

    # -- making ----------------------------------------------------------------------------------------

    def _make(
        self, names: DeviceNames, geometry: SnapshotGeometry, rootfs: Path, changes: Path, ledger: VmLedger
    ) -> Path:
        """All four, each noted in the ledger; the loop devices are held until the device above holds them."""
        size = geometry.size_bytes
        with ExitStack() as held:
            image = held.enter_context(self._loops.attached(rootfs, names.image_loop, read_only=True))
            ledger.activate("loop", names.image_loop, {"device": str(image), "file": str(rootfs)})
            table = origin_table(rootfs.stat().st_size, size, str(image))
            origin = self._create(names.origin, table, read_only=True)
            ledger.activate("dm", names.origin)
            loop = held.enter_context(self._loops.attached(changes, names.changes_loop, read_only=False))
            ledger.activate("loop", names.changes_loop, {"device": str(loop), "file": str(changes)})
            snapshot = self._create(names.snapshot, snapshot_table(size, str(origin), str(loop)), read_only=False)
            ledger.activate("dm", names.snapshot)
        return snapshot

    def _create(self, name: str, table: str, *, read_only: bool) -> Path:
        try:
            return self._mapper.create(name, table, read_only=read_only)
        except OSError as error:
            kind = ErrorKind.CONFLICT if error.errno == errno.EBUSY else ErrorKind.UNAVAILABLE
            raise BangerError(
                kind,
                f'cannot make the device "{name}"',
                subject=name,
                cause=error.strerror or str(error),
                hint="banger doctor --leaks",
            ) from error

    def _check(self, snapshot: str, vm_dir: Path) -> None:
        state = parse_status(self._mapper.status(snapshot)).state
        if state is SnapshotState.INVALID:
            raise BangerError(
                ErrorKind.INVALID,
                f'the disk in "{vm_dir}" is lost',
                subject=str(vm_dir),
                cause=state.value,
                hint="delete the VM and create it again",
            )

    # -- taking down -----------------------------------------------------------------------------------

    def _steps(self, names: DeviceNames, ledger: VmLedger) -> Sequence[CleanupStep]:
        """From above to below; each strikes out what is gone."""

        def device(name: str, *needs: str) -> CleanupStep:
            return CleanupStep(f"device {name}", lambda: self._remove_device(name, ledger), needs=needs)

        def loop(name: str) -> CleanupStep:
            needs = (f"device {names.snapshot}", f"device {names.origin}")
            return CleanupStep(f"loop device {name}", lambda: self._clear_loops(name, ledger), needs=needs)

        return (
            device(names.snapshot),
            device(names.origin, f"device {names.snapshot}"),
            loop(names.changes_loop),
            loop(names.image_loop),
        )

    def _clear_leftovers(self, names: DeviceNames, ledger: VmLedger) -> None:
        """What has our name but was made by a start that nobody remembers, or that never ended."""
        devices = self._mapper.devices()
        loops = {loop.name for loop in self._loops.all()}
        if not any(key in (devices if kind == "dm" else loops) for kind, key in _handles(names)):
            return
        try:
            run_all(self._steps(names, ledger))
        except ExceptionGroup as failures:
            raise BangerError(
                ErrorKind.CONFLICT,
                f"the VM {names.vm_id} still has a disk device of an earlier start",
                subject=names.vm_id,
                cause=str(failures.exceptions[0]),
                hint="find out by whom: banger doctor --leaks",
            ) from failures

    def _remove_device(self, name: str, ledger: VmLedger) -> None:
        if name in self._mapper.devices():
            try:
                self._mapper.remove(name)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
        ledger.strike("dm", name)

    def _clear_loops(self, name: str, ledger: VmLedger) -> None:
        for loop in self._loops.named(name):
            self._loops.clear(loop)
        ledger.strike("loop", name)


def _handles(names: DeviceNames) -> tuple[tuple[str, str], ...]:
    """Kinds and keys of the ledger, in the order in which they are made."""
    return (
        ("loop", names.image_loop),
        ("dm", names.origin),
        ("loop", names.changes_loop),
        ("dm", names.snapshot),
    )


def _whole_mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB) * MIB
