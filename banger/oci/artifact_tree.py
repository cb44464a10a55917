"""Unpacking an untrusted tar archive into a directory of this host.

It never resolves a path of the archive: every directory on the way is opened relative to its parent's
descriptor without following links, so nothing can be written outside the target, whatever the archive holds and
whatever it has put there before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from banger.core.cancel import CancelToken
from banger.core.units import GIB, MIB
from banger.rootfs.decompress import decompressed
from banger.rootfs.limits import NAME_BYTES, Budget, Limits
from banger.rootfs.reader import ChunkReader
from banger.rootfs.refusals import refused, shown
from banger.rootfs.tar import Member, MemberKind, TarReader

#: What the modules of a kernel may cost; Debian's largest has 4,000 files and 0.5 GiB.
MODULE_LIMITS = Limits(
    entries=100_000, file_bytes=1 * GIB, total_bytes=8 * GIB, metadata_bytes=128 * MIB, path_bytes=1024
)
_CHUNK_BYTES = 1 << 20
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack_tree(
    source: BinaryIO,
    target: Path,
    token: CancelToken,
    *,
    limits: Limits = MODULE_LIMITS,
    ignored_links: Collection[bytes] = (),
) -> None:
    """Unpack a tar archive (plain, gzip or zstd) into ``target``, an empty directory.

    Files, directories, hard links and symbolic links that stay inside are made, all owned by the caller; everything
    else is refused. After a failure ``target`` is left half filled.

    Args:
        source: the archive, read forward only.
        target: where to.
        token: cancels.
        limits: ceilings, counted after decompression.
        ignored_links: names of symbolic links that are left out wherever they are and wherever they lead.

    Raises:
        BangerError: ``invalid`` for a damaged or hostile archive; ``cancelled``.
        OSError: the host's file system said no.
    """
    budget = Budget(limits)
    _, chunks = decompressed(source, lambda _: token.raise_if_cancelled())
    reader = ChunkReader(_counted(chunks, budget, token))
    root = os.open(target, _DIRECTORY_FLAGS)
    try:
        unpacker = _Unpacker(root, reader, budget)
        for member in TarReader(reader, limits, end_marker=True):
            path = _checked_path(member.name)
            if not (member.kind is MemberKind.SYMLINK and path and path[-1] in ignored_links):
                unpacker.add(path, member)
    finally:
        os.close(root)


def _counted(chunks: Iterator[bytes], budget: Budget, token: CancelToken) -> Iterator[bytes]:
    for chunk in chunks:
        token.raise_if_cancelled()
        budget.spend_inflated(len(chunk))
        yield chunk


def _checked_path(raw: bytes) -> list[bytes]:
    """The components of a member's name; empty for the root itself."""
    if raw.startswith(b"/"):
        raise refused(f"the path {shown(raw)} is absolute")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    for part in parts:
        if part == b"..":
            raise refused(f"the path {shown(raw)} leads upwards")
        if len(part) > NAME_BYTES:
            raise refused(f"the name {shown(part)} is longer than {NAME_BYTES} bytes")
    return parts


class _Unpacker:
    """Makes members below the directory ``root``, a descriptor."""

    def __init__(self, root: int, reader: ChunkReader, budget: Budget) -> None:
        self._root = root
        self._reader = reader
        self._budget = budget

    def add(self, path: list[bytes], member: Member) -> None:
        """Make one member; its data is read from the reader."""
        self._budget.spend_entry(len(member.name) + len(member.link))
        if not path:
            if member.kind is not MemberKind.DIRECTORY:
                raise refused(f"entry {shown(member.name)} replaces the top directory")
            return
        with self._directory(path[:-1], member.name, make=True) as parent:
            try:
                self._make(parent, path, member)
            except FileExistsError:
                raise refused(f"the path {shown(member.name)} occurs twice") from None

    def _make(self, parent: int, path: list[bytes], member: Member) -> None:
        name = path[-1]
        if member.kind is MemberKind.FILE:
            self._write_file(parent, name, member)
        elif member.kind is MemberKind.DIRECTORY:
            if not self._make_directory(parent, name) and not _is_directory(parent, name):
                raise refused(f"the path {shown(member.name)} occurs twice")
        elif member.kind is MemberKind.SYMLINK:
            _check_link(member, depth=len(path) - 1)
            os.symlink(member.link, name, dir_fd=parent)
        elif member.kind is MemberKind.HARD_LINK:
            self._link(parent, name, member)
        else:
            raise refused(f"entry {shown(member.name)} is a {member.kind.value}")

    def _write_file(self, parent: int, name: bytes, member: Member) -> None:
        mode = 0o755 if member.mode & 0o111 else 0o644
        descriptor = os.open(name, _CREATE_FLAGS, mode, dir_fd=parent)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            left = member.size
            while left:
                chunk = memoryview(self._reader.read(min(left, _CHUNK_BYTES)))
                left -= len(chunk)
                while chunk:
                    chunk = chunk[file.write(chunk) :]

    def _link(self, parent: int, name: bytes, member: Member) -> None:
        target = _checked_path(member.link)
        nowhere = refused(f"the link {shown(member.name)} leads to {shown(member.link)}, which is not a file")
        if not target:
            raise nowhere
        try:
            with self._directory(target[:-1], member.link, make=False) as place:
                if not stat.S_ISREG(os.stat(target[-1], dir_fd=place, follow_symlinks=False).st_mode):
                    raise nowhere
                os.link(target[-1], name, src_dir_fd=place, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise nowhere from None

    @contextmanager
    def _directory(self, parts: list[bytes], shown_as: bytes, *, make: bool) -> Iterator[int]:
        """The descriptor of a directory below the root, every step of the way a real directory."""
        descriptor = os.dup(self._root)
        try:
            for part in parts:
                if make:
                    self._make_directory(descriptor, part)
                try:
                    inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=descriptor)
                except OSError:
                    if _is_directory(descriptor, part):
                        raise
                    raise refused(f"the path {shown(shown_as)} passes through a file or a link") from None
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _make_directory(self, parent: int, name: bytes) -> bool:
        """True if it is new: what the archive only implies is counted like what it names."""
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            return False
        self._budget.spend_entry(len(name))
        return True


def _check_link(member: Member, depth: int) -> None:
    """Refuse a link out of the tree.

    Only leading ``..`` are allowed, and no more than there are directories above: the directories of a link's own path
    are real ones, so those can be counted; behind a name, which may itself be a link, they could not.
    """
    parts = [part for part in member.link.split(b"/") if part not in (b"", b".")]
    upwards = next((i for i, part in enumerate(parts) if part != b".."), len(parts))
    if member.link.startswith(b"/") or upwards > depth or b".." in parts[upwards:]:
        raise refused(f"the link {shown(member.name)} leads out of the archive, to {shown(member.link)}")


def _is_directory(parent: int, name: bytes) -> bool:
    """Raises ``FileNotFoundError`` if there is nothing of that name."""
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
