"""A local file or directory as a tar stream (POSIX.1-2001 pax), made piece by piece."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind


class _Writer:
    """The write-only file that ``tarfile`` wants, on top of a function that sends."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._stopped = False

    def write(self, data: bytes) -> int:
        if not self._stopped:
            self._send(bytes(data))
        return len(data)

    def stop(self) -> None:
        """Swallow what ``tarfile`` still writes while it is taken down: nobody waits for it."""
        self._stopped = True


def pack(source: Path, top: str, send: Callable[[bytes], None]) -> None:
    """Send ``source`` as a tar stream; symbolic links in it stay links, sockets are left out.

    Args:
        source: file or directory.
        top: name of the topmost entry; empty sends only what the directory holds.
        send: takes the pieces; what it raises ends the packing.

    Raises:
        BangerError: ``denied`` for a file that cannot be read, ``conflict`` for one that shrinks while it is read.
    """
    writer = _Writer(send)
    with tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        try:
            if top:
                _add(tar, source, top)
            else:
                _add_children(tar, source, "")
        except OSError as error:
            writer.stop()
            where = str(error.filename or source)
            cause = error.strerror or str(error)
            raise BangerError(ErrorKind.DENIED, f'cannot read "{where}"', subject=where, cause=cause) from error
        except BaseException:
            writer.stop()
            raise


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    if stat.S_ISSOCK(path.lstat().st_mode):
        return
    info = tar.gettarinfo(str(path), name)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if info.isreg():
        _add_file(tar, path, info)
        return
    tar.addfile(info)
    if info.isdir():
        _add_children(tar, path, name)


def _add_file(tar: tarfile.TarFile, path: Path, info: tarfile.TarInfo) -> None:
    with path.open("rb") as file:
        info.size = os.fstat(file.fileno()).st_size
        try:
            tar.addfile(info, file)
        except OSError as error:
            if error.errno is not None:
                raise
            message = f'"{path}" became shorter while it was read'
            raise BangerError(ErrorKind.CONFLICT, message, subject=str(path)) from error


def _add_children(tar: tarfile.TarFile, directory: Path, name: str) -> None:
    for child in sorted(directory.iterdir()):
        _add(tar, child, f"{name}/{child.name}" if name else child.name)
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every member for ever
