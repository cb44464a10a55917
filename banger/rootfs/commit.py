"""Committing a stopped VM: its base and its writable disk are read as one tree and written as one file system.

Nothing is mounted, and the disk is only read: the guest's last writes are still in its journal, so that e2fsck replays
that in a copy.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import RootfsFacts
from banger.core.units import KIB, MIB
from banger.rootfs.build import Layer, build_rootfs
from banger.rootfs.commit_rules import CommitRules, Treatment
from banger.rootfs.ext4.reader import Ext4Reader, Inode
from banger.rootfs.overlay import OverlayImage
from banger.rootfs.separate import SeparateImage
from banger.rootfs.tools import run_tool
from banger.rootfs.tree_tar import ChunkStream, TreeTar

if TYPE_CHECKING:
    from banger.rootfs.ext4.reader import Keep

#: e2fsck(8), EXIT CODE: clean; errors corrected; corrected, and a system that has it mounted should be rebooted.
_E2FSCK_USABLE = frozenset({0, 1, 2})
#: Room per entry when the size is chosen: ext4 gets one inode per 16 KiB, and a file's last block is half empty.
_ENTRY_BYTES = 32 * KIB
#: Room for the journal and for group descriptors.
_OVERHEAD_BYTES = 256 * MIB
#: What an archive spends on an entry at most, as a rule: an extended header, its data, and the plain header.
_HEADER_BYTES = 1536
_QUOTED_BYTES = 2000


def _keep_all(_path: bytes, _inode: Inode) -> bool:
    return True


CopyFile = Callable[[Path, Path, Operation], None]
"""Copies a large sparse file to a path that does not exist."""


def commit_rootfs(
    rootfs: Path,
    disk: Path,
    target: Path,
    *,
    copy: CopyFile,
    keep: Sequence[str] = (),
    operation: Operation,
    whole: bool = False,
) -> RootfsFacts:
    """Write the image that a VM's base and its writable disk add up to. Equal ones give equal images.

    Args:
        rootfs: the base; only read.
        disk: an ext4 with the directory ``upper`` of an overlay, which no VM uses now; only read.
        target: the file to make, replaced if it exists and gone after any failure. A copy of the disk is beside it
            while this works.
        copy: makes that copy.
        keep: absolute paths that :data:`~banger.rootfs.commit_rules.RULES` would leave out, empty or put back.
        operation: gets the steps "copy disk" and "merge disk" and those of
            :func:`~banger.rootfs.build.build_rootfs`; its token cancels.
        whole: the disk is a root file system itself, once copied; the base only tells what an image had before.

    Returns:
        Sizes (those of the base, or larger if the content needs it), and the digest of the tree's canonical archive.

    Raises:
        BangerError: ``invalid`` if the base or the disk is damaged or no such thing; ``exhausted`` if the content does
            not fit or the host's disk is full; ``unavailable`` without e2fsprogs; ``cancelled``.
    """
    merged = target.with_name(f"{target.name}.disk")
    try:
        with operation.step("copy disk"):
            copy(disk, merged, operation)
            _replay_journal(merged, disk, operation)
        kind = CommittedDisk if whole else CommittedImage
        with Ext4Reader(rootfs) as base, kind(base, merged, CommitRules(keep)) as image:
            return _write(image, base, target, operation)
    finally:
        merged.unlink(missing_ok=True)


class _Committed(Ext4Reader):
    """A tree as it goes into an image: with the rules applied to what :meth:`walk` finds.

    Inodes of the base have their own numbers, those of the tree larger ones.
    """

    _base: Ext4Reader
    _rules: CommitRules

    def walk(self, start: Inode | None = None, keep: Keep = _keep_all) -> Iterator[tuple[bytes, Inode]]:
        """As every image; what is put back as it was in the base is in its old place."""
        for path, inode in super().walk(start, lambda path, inode: self._stays(path, inode) and keep(path, inode)):
            match self._rules.treatment(path, inode):
                case Treatment.EMPTY:
                    yield path, replace(inode, size=0, nlink=1)
                case Treatment.AS_IN_BASE:
                    yield path, self._base.resolve(path, follow=False)
                case _:
                    yield path, inode

    def _stays(self, path: bytes, inode: Inode) -> bool:
        match self._rules.treatment(path, inode):
            case Treatment.LEAVE_OUT | Treatment.LEAVE_OUT_FILE:
                return False
            case Treatment.AS_IN_BASE:
                before = self._base.find(path, follow=False)
                return before is not None and not before.is_directory
        return True


class CommittedImage(_Committed, OverlayImage):
    """The tree that a base and a layer over it add up to."""

    def __init__(self, base: Ext4Reader, disk: Path, rules: CommitRules) -> None:
        super().__init__(base, disk)
        self._rules = rules


class CommittedDisk(_Committed, SeparateImage):
    """The tree of a whole root file system."""

    def __init__(self, base: Ext4Reader, disk: Path, rules: CommitRules) -> None:
        super().__init__(base, disk)
        self._rules = rules


@dataclass(slots=True)
class _Extent:
    """What a tree holds, found by walking it once without reading any file.

    Attributes:
        data_bytes: sizes of its files; those with several names count for each.
        fingerprint: hash of names and attributes.
    """

    entries: int
    data_bytes: int
    fingerprint: str


def _write(image: _Committed, base: Ext4Reader, target: Path, operation: Operation) -> RootfsFacts:
    extent = _measure(image, operation)
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for chunk in TreeTar(image, token=operation.token).chunks():
            digest.update(chunk)
            yield chunk

    archive_bytes = extent.data_bytes + extent.entries * _HEADER_BYTES
    facts = base.superblock
    wanted = extent.data_bytes + extent.data_bytes // 4 + extent.entries * _ENTRY_BYTES + _OVERHEAD_BYTES
    built = build_rootfs(
        [Layer(stream=cast("BinaryIO", ChunkStream(hashed())), compressed_bytes=archive_bytes)],
        target,
        operation=operation,
        size_bytes=max(facts.blocks * facts.block_bytes, -(-wanted // MIB) * MIB),
        reserved_uuid=uuid.uuid5(facts.uuid, extent.fingerprint),
    )
    return RootfsFacts(built.size_bytes, built.disk_bytes, f"sha256:{digest.hexdigest()}")


def _measure(image: _Committed, operation: Operation) -> _Extent:
    fingerprint = hashlib.sha256()
    entries = data_bytes = 0
    with operation.step("merge disk") as step:
        for path, inode in image.walk():
            operation.token.raise_if_cancelled()
            entries += 1
            data_bytes += inode.size if inode.is_file else 0
            fingerprint.update(b"%b\0%d %d %d\n" % (path, inode.mode, inode.size, inode.mtime_ns))
            step.update(entries, unit="files")
    return _Extent(entries, data_bytes, fingerprint.hexdigest())


def _replay_journal(copied: Path, disk: Path, operation: Operation) -> None:
    code, output = run_tool("e2fsck", ["-f", "-y", str(copied)], token=operation.token)
    if code not in _E2FSCK_USABLE:
        raise BangerError(
            ErrorKind.INVALID,
            f'the file system in "{disk}" cannot be repaired',
            subject=str(disk),
            cause=output[-_QUOTED_BYTES:],
        )
