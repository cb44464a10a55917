"""A tar stream from a guest, unpacked below one directory of this host. The guest is not trusted.

Every member is made by hand, relative to directory descriptors that never follow a symbolic link, so what the
archive makes first cannot lead what comes later somewhere else. Refused: absolute names and ``..`` (the whole copy
ends), links that point out of the copied tree, devices and pipes (left out, and told).
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind

#: A longer name or comment in the archive's own headers is an attack on our memory.
_MAX_HEADER = 1 << 20
_COPY_BYTES = 1 << 20
_MAX_LEFT_OUT = 10_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Reader:
    """The read-only file that ``tarfile`` wants, on top of a function that receives."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and (data := self._receive()):
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class _BoundedTarInfo(tarfile.TarInfo):
    """Refuses extension headers that would be read into memory whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and not self.isdir() and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]  # documented to be overridden, not stubbed


def unpack(receive: Callable[[], bytes], target: Path, top: str) -> list[str]:
    """Make the archive's one tree below ``target``.

    Args:
        receive: the next piece of the stream; empty at its end.
        target: existing directory.
        top: name that the archive's topmost entry gets; empty puts what it holds straight into ``target``.

    Returns:
        One line for every member that was left out, and why (for the first ten thousand).

    Raises:
        BangerError: ``invalid`` for what is no archive or wants out of the directory, ``denied`` and ``exhausted``
            for what this host refuses.
    """
    unpacker: _Unpacker | None = None
    try:
        unpacker = _Unpacker(target, top)
        with tarfile.open(fileobj=_Reader(receive), mode="r|", tarinfo=_BoundedTarInfo) as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members.clear()  # tarfile would remember every member for ever
                unpacker.make(tar, member)
        unpacker.finish_directories()
    except tarfile.TarError as error:
        message = "the guest did not send a tar archive that can be read"
        raise BangerError(ErrorKind.INVALID, message, cause=str(error)) from error
    except OSError as error:
        raise _host_error(error, target) from error
    finally:
        if unpacker is not None:
            unpacker.close()
    return unpacker.left_out


def link_stays_inside(depth: int, link_target: str) -> bool:
    """True if a symbolic link cannot leave the tree, whatever other links of the same kind it passes through.

    So ``..`` is only allowed in front: behind a name it would be taken from wherever that name leads.

    Args:
        depth: how many directories below the tree's root the link lies.
        link_target: what it points to.
    """
    parts = [part for part in link_target.split("/") if part not in ("", ".")]
    ups = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    return not link_target.startswith("/") and ups <= depth and ".." not in parts[ups:]


class _Unpacker:
    """Makes members one by one. Paths are tuples of names below the target directory."""

    def __init__(self, target: Path, top: str) -> None:
        self.left_out: list[str] = []
        self._prefix = (top,) if top else ()
        self._archive_top: str | None = None
        self._directories: list[tuple[tuple[str, ...], int]] = []
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent: tuple[tuple[str, ...], int] = ((), os.dup(self._root))

    def close(self) -> None:
        os.close(self._parent[1])
        os.close(self._root)

    def make(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        inside = self._inside(member.name)
        path = (*self._prefix, *inside)
        if member.isdir():
            self._make_directory(path, member)
        elif not path:
            raise BangerError(ErrorKind.INVALID, "the guest sent something else than a directory")
        elif member.isreg():
            self._make_file(path, tar, member)
        elif member.issym():
            self._make_symbolic_link(path, inside, member)
        elif member.islnk():
            self._make_hard_link(path, member)
        else:
            self._leave_out(f"{member.name}: a device or a pipe")

    def finish_directories(self) -> None:
        """Give the directories their modes, the deepest first: a read-only one could not have been filled."""
        for path, mode in reversed(self._directories):
            os.fchmod(self._open_directory(path), mode)

    def _leave_out(self, line: str) -> None:
        if len(self.left_out) < _MAX_LEFT_OUT:
            self.left_out.append(line)

    def _inside(self, name: str) -> tuple[str, ...]:
        """A member's path inside the copied tree. The first member tells what the archive's topmost entry is called."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts:
            raise _hostile(name, "it points out of the archive")
        if self._archive_top is None:
            self._archive_top = parts[0] if parts else ""
        if not self._archive_top:
            return tuple(parts)
        if parts[:1] != [self._archive_top]:
            raise _hostile(name, f'everything was to be below "{self._archive_top}"')
        return tuple(parts[1:])

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

    @staticmethod
    def _enter(parent: int, name: str) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=parent)
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise _hostile(name, "something is to go below it, and it is no directory") from error
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
        else:
            self._directories.append((path, member.mode & 0o777))

    def _make_file(self, path: tuple[str, ...], tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write beside and rename: a reader never sees half a file, and what is replaced is not written through."""
        parent = self._open_directory(path[:-1])
        temporary = f".banger-{os.getpid()}.part"
        source = tar.extractfile(member)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=parent), "wb") as file:
                while data := source.read(_COPY_BYTES):
                    file.write(data)
                file.flush()
                os.fchmod(file.fileno(), member.mode & 0o777)
                os.utime(file.fileno(), (member.mtime, member.mtime))
            os.rename(temporary, path[-1], src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            _unlink(temporary, parent)
            raise

    def _make_symbolic_link(self, path: tuple[str, ...], inside: tuple[str, ...], member: tarfile.TarInfo) -> None:
        if not inside:
            message = f'"{member.name}" is a symbolic link to "{member.linkname}"'
            raise BangerError(ErrorKind.INVALID, message, subject=member.name, hint="copy what it points to")
        if not link_stays_inside(len(inside) - 1, member.linkname):
            self._leave_out(f"{member.name}: a link out of the copied tree, to {member.linkname}")
            return
        parent = self._open_directory(path[:-1])
        _unlink(path[-1], parent)
        os.symlink(member.linkname, path[-1], dir_fd=parent)

    def _make_hard_link(self, path: tuple[str, ...], member: tarfile.TarInfo) -> None:
        source = (*self._prefix, *self._inside(member.linkname))
        source_parent = os.dup(self._open_directory(source[:-1]))
        try:
            parent = self._open_directory(path[:-1])
            if not stat.S_ISREG(os.lstat(source[-1], dir_fd=source_parent).st_mode):
                raise _hostile(member.name, "it is a link to something else than a file")
            if source != path:
                _unlink(path[-1], parent)
                os.link(source[-1], path[-1], src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source_parent)


def _unlink(name: str, parent: int) -> None:
    """Remove what has this name, if it is there."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _hostile(name: str, why: str) -> BangerError:
    message = f'the guest sent an archive that cannot be trusted: "{name}"'
    return BangerError(ErrorKind.INVALID, message, subject=name, cause=why)


def _host_error(error: OSError, target: Path) -> BangerError:
    where = str(error.filename or target)
    kind = ErrorKind.EXHAUSTED if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorKind.DENIED
    return BangerError(kind, f'cannot write "{where}"', subject=where, cause=error.strerror or str(error))
