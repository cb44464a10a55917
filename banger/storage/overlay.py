"""The ``overlay`` driver: the image read-only and shared, a sparse ext4 per VM over it, joined inside the guest.

O(1) in time and space, needs no privilege and nothing of the host's kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import Drive, Fill, VmLedger
from banger.core.units import MIB
from banger.rootfs.disk import make_disk
from banger.rootfs.resize import grow_disk
from banger.storage.files import (
    DATA_SERIAL,
    ROOT_SERIAL,
    fill_of,
    fork_file,
    freeze_file,
    make_whole,
    remove_file,
    require,
)


class OverlayStorage:
    """See the module."""

    name = "overlay"
    root = "overlay"
    is_lost_when_host_is_full = False

    def create(self, vm_dir: Path, rootfs: Path, size_mib: int, operation: Operation) -> None:  # noqa: ARG002
        """Make the writable layer: a sparse, empty ext4."""
        make_whole(writable_layer(vm_dir), lambda new: make_disk(new, size_mib * MIB, label="banger-data"))

    def attach(self, vm_id: str, vm_dir: Path, rootfs: Path, ledger: VmLedger) -> Sequence[Drive]:  # noqa: ARG002
        """Base and writable layer: nothing has to be made."""
        return (
            Drive(require(rootfs), ROOT_SERIAL, read_only=True),
            Drive(require(writable_layer(vm_dir)), DATA_SERIAL, read_only=False),
        )

    def detach(self, vm_id: str, vm_dir: Path, ledger: VmLedger) -> Sequence[CleanupStep]:  # noqa: ARG002
        """Nothing was made."""
        return ()

    def grow(self, vm_dir: Path, size_mib: int, operation: Operation) -> None:
        """Make the writable layer larger."""
        with operation.step("grow disk"):
            grow_disk(writable_layer(vm_dir), size_mib * MIB, operation.token)

    def freeze(self, vm_id: str, vm_dir: Path, into: Path, token: CancelToken) -> None:  # noqa: ARG002
        """A clone of the writable layer where that is possible, otherwise a sparse copy."""
        freeze_file(writable_layer(vm_dir), into, token)

    def fork(self, generation: Path, vm_dir: Path, operation: Operation) -> None:
        """The same, of the frozen one."""
        fork_file(generation, writable_layer(vm_dir), operation.token)

    def remove(self, vm_dir: Path) -> None:
        """Delete the writable layer."""
        remove_file(writable_layer(vm_dir))

    def fill(self, vm_id: str, vm_dir: Path) -> Fill:  # noqa: ARG002
        """What the writable layer occupies."""
        return fill_of(writable_layer(vm_dir))


def writable_layer(vm_dir: Path) -> Path:
    """Where a VM's writable layer is."""
    return vm_dir / "disk.ext4"
