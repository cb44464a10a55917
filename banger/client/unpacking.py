"""Unpacking a tar stream from an untrusted guest below one directory of this host.

Every member is made by hand, relative to directory descriptors that never follow a symbolic link, so what the
archive makes first cannot lead what comes later somewhere else. Symbolic links are kept as the text they are, wherever
they point: only who follows them later goes there. Refused: absolute names, ``..``, what lies behind a link and hard
links to what was here before (the whole copy ends), devices and pipes (left out, and told), the bits that lend a file's
owner or group to who runs it. Sparse files stay sparse, and what all of it may take is bounded.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from banger.client.archive import OneTree, Receive, content, hostile, members, reading
from banger.client.ceiling import MOST_BYTES, Ceiling
from banger.client.fresh_file import FreshFile
from banger.core.errors import BangerError, ErrorKind

_ZEROS = bytes(256 << 10)
_MAX_LEFT_OUT_BYTES = 1 << 20
_MOST_CLOSED = 10_000
#: 2^32 - 1 means "leave as it is" to chown(2).
_MOST_ID = 2**32 - 2
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: File times lag behind the clock by a tick of it.
_CLOCK_SLACK_NS = 1_000_000_000
_NO_ARCHIVE = "the guest did not send a tar archive that can be read"


def unpack(
    receive: Receive, target: Path, top: str, *, keep_owner: bool = False, most_bytes: int = MOST_BYTES
) -> list[str]:
    """Make the archive's one tree below ``target``.

    Args:
        receive: the next piece of the stream; empty at its end.
        target: existing directory.
        top: name that the archive's topmost entry gets; empty puts what it holds straight into ``target``.
        keep_owner: give everything the owner and group that the archive names, by number.
        most_bytes: what the whole tree may take.

    Returns:
        One line for every member that was left out, and why (for the first MiB of them).

    Raises:
        BangerError: ``invalid`` for what is no archive or wants out of the directory, ``conflict`` for a directory in
            place of something else or the reverse, ``denied`` and ``exhausted`` for what this host refuses.
    """
    unpacker: _Unpacker | None = None
    try:
        unpacker = _Unpacker(target, top, keep_owner=keep_owner, most_bytes=most_bytes)
        with reading(receive, _NO_ARCHIVE) as tar:
            for member in members(tar):
                unpacker.make(tar, member)
            unpacker.finish()
    except OSError as error:
        raise _host_error(error, target) from error
    finally:
        if unpacker is not None:
            unpacker.close()
    return unpacker.left_out


@dataclass(frozen=True, slots=True)
class _Late:
    """What a directory gets when it is filled: a read-only one could not be, and filling changes its time."""

    path: tuple[str, ...]
    mode: int
    mtime: float
    uid: int
    gid: int


class _Unpacker:
    """Makes members one by one. Paths are tuples of names below the target directory."""

    def __init__(self, target: Path, top: str, *, keep_owner: bool, most_bytes: int) -> None:
        self.left_out: list[str] = []
        self._left_out_bytes = 0
        self._prefix = (top,) if top else ()
        self._tree = OneTree()
        self._keep_owner = keep_owner
        self._directories: list[_Late] = []
        self._closed_to_us: list[_Late] = []
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent: tuple[tuple[str, ...], int] = ((), os.dup(self._root))
        self._begun_ns = _time_of(self._root)
        self._ceiling = Ceiling(most_bytes, self._root)

    def close(self) -> None:
        os.close(self._parent[1])
        os.close(self._root)

    def make(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = (*self._prefix, *self._tree.inside(member.name))
        self._leave_directories(path)
        if self._keep_owner and not (0 <= member.uid <= _MOST_ID and 0 <= member.gid <= _MOST_ID):
            raise hostile(member.name, "it belongs to a user or a group that there cannot be")
        self._ceiling.add_entry(member.size if member.isreg() else 0)
        if member.isdir():
            self._make_directory(path, member)
        elif not path:
            raise BangerError(ErrorKind.INVALID, "the guest sent something else than a directory")
        elif member.isreg():
            self._make_file(path, tar, member)
        elif member.issym():
            self._make_symbolic_link(path, member)
        elif member.islnk():
            self._make_hard_link(path, member)
        else:
            self._leave_out(f"{member.name}: a device or a pipe")

    def finish(self) -> None:
        """Complete what is not complete yet."""
        self._leave_directories(())
        for late in sorted(self._closed_to_us, key=lambda late: len(late.path), reverse=True):
            self._finish_directory(late)

    def _leave_directories(self, path: tuple[str, ...]) -> None:
        """Complete the directories that ``path`` is not below, the deepest first.

        Archivers put what a directory holds right behind it, so that only those on the way to ``path`` need be known;
        and a few that nobody could enter any more, in whose files a later hard link may have its source.
        """
        while self._directories and self._directories[-1].path != path[: len(self._directories[-1].path)]:
            late = self._directories.pop()
            if late.mode & 0o700 != 0o700 and len(self._closed_to_us) < _MOST_CLOSED:
                self._closed_to_us.append(late)
            else:
                self._finish_directory(late)

    def _finish_directory(self, late: _Late) -> None:
        descriptor = self._open_directory(late.path)
        self._own(descriptor, late)
        os.fchmod(descriptor, late.mode & 0o1777)
        os.utime(descriptor, (late.mtime, late.mtime))

    def _leave_out(self, line: str) -> None:
        self._left_out_bytes += len(line)
        if self._left_out_bytes <= _MAX_LEFT_OUT_BYTES:
            self.left_out.append(line)

    def _own(self, descriptor: int, source: tarfile.TarInfo | _Late) -> None:
        if self._keep_owner:
            os.fchown(descriptor, source.uid, source.gid)

    def _open_directory(self, path: tuple[str, ...]) -> int:
        """A descriptor of a directory below the target; missing ones are made. It stays ours to close."""
        if self._parent[0] == path:
            return self._parent[1]
        current = os.dup(self._root)
        try:
            for name in path:
                current, above = self._enter(current, name), current
                os.close(above)
        except BaseException:
            os.close(current)
            raise
        os.close(self._parent[1])
        self._parent = (path, current)
        return current

    def _enter(self, parent: int, name: str) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            self._ceiling.add_entry()
            os.mkdir(name, 0o755, dir_fd=parent)
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise hostile(name, "something is to go below it, and it is not a directory") from error
            raise

    def _make_directory(self, path: tuple[str, ...], member: tarfile.TarInfo) -> None:
        if not path:
            return
        parent = self._open_directory(path[:-1])
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path[-1], dir_fd=parent).st_mode):
                message = f'"{path[-1]}" is in the way of a directory'
                raise BangerError(ErrorKind.CONFLICT, message, subject=path[-1]) from None
        if self._directories and self._directories[-1].path == path:
            self._directories.pop()
        self._directories.append(_Late(path, member.mode, member.mtime, member.uid, member.gid))

    def _make_file(self, path: tuple[str, ...], tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write beside and rename: a reader never sees half a file, and what is replaced is not written through."""
        parent = self._open_directory(path[:-1])
        with FreshFile(parent) as fresh:
            self._write_sparsely(fresh.descriptor, tar, member)
            self._own(fresh.descriptor, member)
            os.fchmod(fresh.descriptor, member.mode & 0o777)
            os.utime(fresh.descriptor, (member.mtime, member.mtime))
            _refuse_directory(path[-1], parent)
            fresh.take_place(path[-1])

    def _write_sparsely(self, descriptor: int, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write a member's data; where there is none, or zeros for long, the file gets a hole."""
        os.ftruncate(descriptor, member.size)
        for offset, piece in content(tar, member):
            if piece == _ZEROS[: len(piece)]:
                continue
            self._ceiling.about_to_write(len(piece))
            _write_at(descriptor, offset, piece)

    def _make_symbolic_link(self, path: tuple[str, ...], member: tarfile.TarInfo) -> None:
        name, parent = path[-1], self._open_directory(path[:-1])
        _make_room(name, parent)
        os.symlink(member.linkname, name, dir_fd=parent)
        if self._keep_owner:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

    def _make_hard_link(self, path: tuple[str, ...], member: tarfile.TarInfo) -> None:
        source = (*self._prefix, *self._tree.inside(member.linkname))
        source_parent = os.dup(self._open_directory(source[:-1]))
        try:
            parent = self._open_directory(path[:-1])
            found = os.lstat(source[-1], dir_fd=source_parent)
            if stat.S_IFMT(found.st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
                raise hostile(member.name, "it is a link to something else than a file")
            if found.st_ctime_ns < self._begun_ns:  # whose, and how secret, the guest does not decide
                raise hostile(member.name, "it is a link to a file that was here before")
            if source != path:
                _make_room(path[-1], parent)
                os.link(source[-1], path[-1], src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source_parent)


def _time_of(directory: int) -> int:
    """The time by the clock of a directory's file system, in nanoseconds: not every one is on this host."""
    try:
        with FreshFile(directory) as probe:
            return os.fstat(probe.descriptor).st_ctime_ns
    except PermissionError:  # perhaps only what is below it may be written
        return time.time_ns() - _CLOCK_SLACK_NS


def _write_at(descriptor: int, offset: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        written = os.pwrite(descriptor, left, offset)
        offset, left = offset + written, left[written:]


def _unlink(name: str, parent: int) -> None:
    """Remove what has this name, if it is there."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _make_room(name: str, parent: int) -> None:
    """Remove what is to be replaced, unless it is a directory."""
    _refuse_directory(name, parent)
    _unlink(name, parent)


def _refuse_directory(name: str, parent: int) -> None:
    try:
        mode = os.lstat(name, dir_fd=parent).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        message = f'"{name}" is a directory, and a file is to take its place'
        raise BangerError(ErrorKind.CONFLICT, message, subject=name, hint="remove it, or copy to another name")


def _host_error(error: OSError, target: Path) -> BangerError:
    where = str(error.filename or target)
    kind = ErrorKind.EXHAUSTED if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorKind.DENIED
    return BangerError(kind, f'cannot write "{where}"', subject=where, cause=error.strerror or str(error))
