"""The drivers ``reflink`` and ``copy``: every VM has its own root file system, a full copy of the image's.

A clone shares the image's blocks until they are written to: as cheap as an overlay, on file systems that can do it
(XFS, Btrfs). A plain copy works anywhere and costs the image's size in time and space.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import Drive, Fill, VmLedger
from banger.core.units import MIB, format_size
from banger.posix.copying import clone_blocks, copy_file
from banger.rootfs.resize import file_system_bytes, grow_disk
from banger.storage.files import ROOT_SERIAL, fill_of, fork_file, freeze_file, make_whole, remove_file, require

_BLOCK = 4096


class CopyStorage:
    """A sparse copy. Also the ground that :class:`ReflinkStorage` stands on."""

    name = "copy"
    root = "direct"
    is_lost_when_host_is_full = False

    def create(self, vm_dir: Path, rootfs: Path, size_mib: int, operation: Operation) -> None:
        """Copy the image, then make its file system as large as the VM's spec says."""

        def make(new: Path) -> None:
            with operation.step("copy disk"):
                self._copy(require(rootfs), new, operation)
            new.chmod(0o600)
            grow_disk(new, max(size_mib * MIB, file_system_bytes(new)), operation.token)

        make_whole(own_root(vm_dir), make, needed_bytes=_occupied(rootfs))

    def attach(self, vm_id: str, vm_dir: Path, rootfs: Path, ledger: VmLedger) -> Sequence[Drive]:  # noqa: ARG002
        """The VM's own root file system: nothing has to be made."""
        return (Drive(require(own_root(vm_dir)), ROOT_SERIAL, read_only=False),)

    def detach(self, vm_id: str, vm_dir: Path, ledger: VmLedger) -> Sequence[CleanupStep]:  # noqa: ARG002
        """Nothing was made."""
        return ()

    def grow(self, vm_dir: Path, size_mib: int, operation: Operation) -> None:
        """Make the root file system larger."""
        with operation.step("grow disk"):
            grow_disk(own_root(vm_dir), size_mib * MIB, operation.token)

    def freeze(self, vm_id: str, vm_dir: Path, into: Path, token: CancelToken) -> None:  # noqa: ARG002
        """A clone of the root file system where that is possible, otherwise a sparse copy."""
        freeze_file(own_root(vm_dir), into, token)

    def fork(self, generation: Path, vm_dir: Path, operation: Operation) -> None:
        """The same, of the frozen one."""
        fork_file(generation, own_root(vm_dir), operation.token)

    def remove(self, vm_dir: Path) -> None:
        """Delete the root file system."""
        remove_file(own_root(vm_dir))

    def fill(self, vm_id: str, vm_dir: Path) -> Fill:  # noqa: ARG002
        """What the root file system occupies; shared blocks are counted too."""
        return fill_of(own_root(vm_dir))

    def _copy(self, rootfs: Path, target: Path, operation: Operation) -> None:
        _check_room(target.parent, _occupied(rootfs))
        copy_file(rootfs, target, operation)


class ReflinkStorage(CopyStorage):
    """A clone; of an image on another file system, which cannot be cloned, a copy."""

    name = "reflink"

    def _copy(self, rootfs: Path, target: Path, operation: Operation) -> None:
        if rootfs.stat().st_dev == target.parent.stat().st_dev:
            clone(rootfs, target)
            return
        operation.note("the image is on another file system: its disk is copied, not cloned")
        super()._copy(rootfs, target, operation)


def own_root(vm_dir: Path) -> Path:
    """Where a VM's own root file system is. The name tells it from a writable layer."""
    return vm_dir / "root.ext4"


def clone(source: Path, target: Path) -> None:
    """Make ``target``, which must not exist, a file that shares all blocks of ``source``.

    Raises:
        BangerError: ``unavailable`` if the file system cannot; ``target`` is gone then.
    """
    with source.open("rb") as reading, target.open("xb") as writing:
        if clone_blocks(reading.fileno(), writing.fileno()):
            return
    target.unlink()
    raise BangerError(
        ErrorKind.UNAVAILABLE,
        f'the file system of "{target.parent}" cannot share blocks between files',
        subject="reflink",
        hint="use --storage overlay, or keep banger's data on XFS or Btrfs",
    )


def why_no_reflink(directory: Path) -> str:
    """Clone a block for real; the reason if that does not work in ``directory``, else empty. Leaves nothing."""
    try:
        with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as target:
            source.write(os.urandom(_BLOCK))
            source.flush()
            if clone_blocks(source.fileno(), target.fileno()):
                return ""
    except OSError as error:
        return f"cannot try it in {directory}: {error.strerror}"
    return f"the file system of {directory} cannot share blocks between files (XFS and Btrfs can)"


def _check_room(directory: Path, needed_bytes: int) -> None:
    """Say so before minutes of copying, not after them."""
    free = shutil.disk_usage(directory).free
    if needed_bytes > free:
        raise BangerError(
            ErrorKind.EXHAUSTED,
            f'not enough room in "{directory}": {format_size(needed_bytes)} needed, {format_size(free)} free',
            subject=str(directory),
            hint="banger system df",
        )


def _occupied(rootfs: Path) -> int:
    try:
        return rootfs.stat().st_blocks * 512
    except OSError:
        return 0  # the copy itself finds the words
