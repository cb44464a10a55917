"""A local file or directory as a tar stream in GNU's format, made piece by piece.

That format, because every busybox reads it: names of any bytes and length, sizes beyond 8 GiB, times before 1970.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

from banger.client.fixed_size import open_fixed_size
from banger.core.errors import BangerError, ErrorKind

Send = Callable[[bytes], None]
"""Takes the pieces; what it raises ends the packing."""


class TarSender:
    """A ``tarfile`` for writing whose bytes go to a function. As a context manager it completes the archive.

    After an exception nothing more is sent: nobody waits for what ``tarfile`` still writes while it is taken down.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._stopped = False
        self.tar = tarfile.open(fileobj=self, mode="w|", format=tarfile.GNU_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115  # closed by __exit__

    def write(self, data: bytes) -> int:
        """For ``tarfile``."""
        if not self._stopped:
            self._send(bytes(data))
        return len(data)

    def add(self, info: tarfile.TarInfo, content: object = None) -> None:
        """Add one member; forget it at once, as ``tarfile`` would not."""
        self.tar.addfile(info, content)
        self.tar.members.clear()

    def __enter__(self) -> TarSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped = kind is not None
        self.tar.close()


def pack(source: Path, top: str, send: Send, *, keep_owner: bool = False) -> None:
    """Send ``source`` as a tar stream; symbolic links, pipes and devices stay what they are, sockets are left out.

    Args:
        source: file, directory, link, pipe or device.
        top: name of the topmost entry; empty sends only what the directory holds.
        send: takes the pieces.
        keep_owner: name owners and groups by number; otherwise everything is root's.

    Raises:
        BangerError: ``denied`` for a file that cannot be read, ``conflict`` for one that shrinks while it is read.
    """
    with TarSender(send) as sender:
        packer = _Packer(sender, keep_owner=keep_owner)
        try:
            if top:
                packer.add(source, top)
            else:
                packer.add_children(source, "")
        except OSError as error:
            where = str(error.filename or source)
            cause = error.strerror or str(error)
            raise BangerError(ErrorKind.DENIED, f'cannot read "{where}"', subject=where, cause=cause) from error


class _Packer:
    def __init__(self, sender: TarSender, *, keep_owner: bool) -> None:
        self._sender = sender
        self._keep_owner = keep_owner

    def add(self, path: Path, name: str) -> None:
        if stat.S_ISSOCK(path.lstat().st_mode):
            return
        info = self._sender.tar.gettarinfo(str(path), name)
        if not self._keep_owner:
            info.uid = info.gid = 0
        info.uname = info.gname = ""  # accounts of this host mean nothing there
        if info.isreg():
            with open_fixed_size(path) as file:
                info.size = file.size
                self._sender.add(info, file)
            return
        self._sender.add(info)
        if info.isdir():
            self.add_children(path, name)

    def add_children(self, directory: Path, name: str) -> None:
        for child in sorted(directory.iterdir()):
            try:
                self.add(child, f"{name}/{child.name}" if name else child.name)
            except FileNotFoundError:
                if os.path.lexists(child):
                    raise
                # deleted meanwhile: what the directory holds now does not include it
