"""The ``overlay`` driver: the image read-only and shared, a sparse ext4 per VM over it, joined inside the guest.

O(1) in time and space, needs no privilege and nothing of the host's kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import Drive, VmLedger
from banger.rootfs.disk import make_disk

#: Serials by which the guest's init finds its drives, whatever order the bus gives them.
ROOT_SERIAL = "root"
DATA_SERIAL = "data"


class OverlayStorage:
    """See the module."""

    name = "overlay"
    root = "overlay"

    def create(self, vm_dir: Path, rootfs: Path, size_mib: int, operation: Operation) -> None:  # noqa: ARG002  # other drivers need the base
        """Make the writable layer: a sparse, empty ext4."""
        disk = self._disk(vm_dir)
        if not disk.exists():
            make_disk(disk, size_mib << 20, label="banger-data")

    def attach(self, vm_id: str, vm_dir: Path, rootfs: Path, ledger: VmLedger) -> Sequence[Drive]:  # noqa: ARG002
        """Base and writable layer; both are files, so nothing is made."""
        return (Drive(rootfs, ROOT_SERIAL, read_only=True), Drive(self._disk(vm_dir), DATA_SERIAL, read_only=False))

    def detach(self, vm_id: str, vm_dir: Path, ledger: VmLedger) -> Sequence[CleanupStep]:  # noqa: ARG002
        """Nothing was made."""
        return []

    def grow(self, vm_dir: Path, size_mib: int, operation: Operation) -> None:
        """Make the writable layer larger."""
        raise NotImplementedError

    def remove(self, vm_dir: Path) -> None:
        """Delete the writable layer."""
        self._disk(vm_dir).unlink(missing_ok=True)

    def _disk(self, vm_dir: Path) -> Path:
        return vm_dir / "disk.ext4"
