"""A stopped VM's disk as one file, for every driver, from which a new image is made. Mounts nothing.

The file with a snapshot's changes is read as the kernel wrote it, so that neither its devices nor any privilege is
needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.posix.copying import copy_file
from banger.storage.files import require
from banger.storage.full_copy import own_root
from banger.storage.overlay import writable_layer
from banger.storage.snapshot_files import SnapshotFiles
from banger.storage.snapshot_format import area_start, read_exceptions, read_header

_HEADER_BYTES = 16
_PIECE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class DiskContents:
    """Where a VM's files are.

    Attributes:
        path: the file that its driver keeps.
        copy: makes a file of ``path`` that can be read as an ext4.
        whole: it stands for a root file system; otherwise it is a layer over the image's.
    """

    path: Path
    copy: Callable[[Path, Path, Operation], None]
    whole: bool


def contents_of(vm_dir: Path, rootfs: Path) -> DiskContents:
    """What is in a VM's directory. Raises ``not_found`` if there is no disk at all."""
    snapshot = SnapshotFiles(vm_dir)
    if snapshot.changes.exists():
        size = snapshot.geometry().size_bytes

        def merge(changes: Path, target: Path, operation: Operation) -> None:
            merge_changes(rootfs, changes, size, target, operation)

        return DiskContents(snapshot.changes, merge, whole=True)
    if own_root(vm_dir).exists():
        return DiskContents(own_root(vm_dir), copy_file, whole=True)
    return DiskContents(require(writable_layer(vm_dir)), copy_file, whole=False)


def merge_changes(rootfs: Path, changes: Path, size_bytes: int, target: Path, operation: Operation) -> None:
    """Write the disk of a snapshot that is not attached: the image, then every changed chunk over it.

    Raises:
        BangerError: ``invalid`` if the changes are lost or contradict themselves; ``exhausted``; ``cancelled``.
    """
    copy_file(rootfs, target, operation)
    try:
        with changes.open("rb") as source, target.open("r+b") as merged:
            os.truncate(merged.fileno(), size_bytes)
            for at, data in _changed(source.fileno(), size_bytes):
                operation.token.raise_if_cancelled()
                os.pwrite(merged.fileno(), data[: size_bytes - at], at)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _changed(source: int, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Offsets in the disk and what is there now, neighbours together."""
    chunk = read_header(os.pread(source, _HEADER_BYTES, 0).ljust(_HEADER_BYTES, b"\0"))
    area, full = 0, bool(chunk)
    while full:
        raw = os.pread(source, chunk, area_start(area, chunk) * chunk)
        found, full = read_exceptions(raw if len(raw) == chunk else b"")
        full = full and len(raw) == chunk
        for old, new, count in _runs(found, max(1, _PIECE_BYTES // chunk)):
            data = os.pread(source, count * chunk, new * chunk)
            if len(data) != count * chunk or old * chunk >= size_bytes:
                raise BangerError(ErrorKind.INVALID, "the snapshot's changes contradict themselves")
            yield old * chunk, data
        area += 1


def _runs(pairs: list[tuple[int, int]], longest: int) -> Iterator[tuple[int, int, int]]:
    """``(first old, first new, how many)`` of what follows on both sides."""
    start = 0
    for end in range(1, len(pairs) + 1):
        length = end - start
        if end < len(pairs) and length < longest:
            old, new = pairs[start]
            if pairs[end] == (old + length, new + length):
                continue
        if pairs[start:end]:
            yield (*pairs[start], length)
        start = end
