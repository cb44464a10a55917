"""The files of a VM with a snapshot: its changes, and the size of its disk."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from banger.core import codec
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.posix.files import sync_path
from banger.rootfs.disk import check_size
from banger.rootfs.ext4.skeleton import host_error
from banger.storage.files import fork_file, freeze_file, remove_file, unfinished
from banger.storage.snapshot_format import changes_bytes


@dataclass(frozen=True, slots=True)
class SnapshotGeometry:
    """How large things are.

    Attributes:
        size_bytes: of the disk that the guest sees.
        percent: how much of it may differ from the image.
    """

    size_bytes: int
    percent: int


class SnapshotFiles:
    """Paths of one VM, and what is in them."""

    def __init__(self, vm_dir: Path) -> None:
        self.changes = vm_dir / "root.cow"
        self._record = vm_dir / "root.json"

    def make(self, geometry: SnapshotGeometry) -> None:
        """Write down the sizes, then make the file for the changes; whatever is there already stays."""
        if not self.changes.exists():
            self._write(geometry)
            self._resize(geometry, os.O_CREAT)

    def geometry(self) -> SnapshotGeometry:
        """The sizes. Raises ``not_found`` if the VM has no such disk."""
        try:
            return codec.from_plain(SnapshotGeometry, json.loads(self._record.read_text()), tolerant=True)
        except FileNotFoundError as error:
            raise BangerError(
                ErrorKind.NOT_FOUND,
                f'there is no disk "{self.changes}"',
                subject=str(self.changes),
                hint="somebody removed it: delete the VM and create it again",
            ) from error
        except (ValueError, BangerError) as error:
            raise BangerError(
                ErrorKind.INVALID, f'"{self._record}" is damaged', subject=str(self._record), cause=str(error)
            ) from error

    def grow(self, geometry: SnapshotGeometry) -> None:
        """Make room for more changes, then write down the new sizes. Repeatable after a crash halfway."""
        self._resize(geometry, 0)
        self._write(geometry)

    def freeze(self, into: Path, token: CancelToken) -> None:
        """Copy both files into a directory."""
        for file in (self._record, self.changes):
            freeze_file(file, into, token)

    def fork(self, generation: Path, token: CancelToken) -> None:
        """Make both files from those in a directory, the one that tells whether there is a disk last."""
        for file in (self._record, self.changes):
            fork_file(generation, file, token)

    def touch(self) -> None:
        """Note that the devices are made now."""
        os.utime(self._record)

    def touched_at(self) -> float:
        """When they were made last, in seconds since the epoch; 0 if the VM's directory is gone."""
        try:
            return self._record.stat().st_mtime
        except OSError:
            return 0.0

    def remove(self) -> None:
        """Delete all of it; already gone is success."""
        remove_file(self.changes)
        remove_file(self._record)

    def _write(self, geometry: SnapshotGeometry) -> None:
        new = unfinished(self._record)
        new.write_text(json.dumps(asdict(geometry)))
        sync_path(new)
        new.rename(self._record)
        sync_path(self._record.parent)

    def _resize(self, geometry: SnapshotGeometry, flags: int) -> None:
        check_size(self.changes, geometry.size_bytes)
        wanted = changes_bytes(geometry.size_bytes, geometry.percent)
        try:
            descriptor = os.open(self.changes, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
            try:
                if os.fstat(descriptor).st_size < wanted:
                    os.truncate(descriptor, wanted)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise host_error(error, self.changes, wanted) from error
