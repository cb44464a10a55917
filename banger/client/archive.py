"""Reading a tar stream from somebody who is not trusted, member by member, in bounded memory."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from banger.core.errors import BangerError, ErrorKind

Receive = Callable[[], bytes]
"""The next piece of the stream; empty at its end."""

#: A longer name or comment in the archive's own headers is an attack on our memory.
_MAX_HEADER = 1 << 20
_UNREADABLE = (tarfile.TarError, EOFError, RecursionError, zlib.error, lzma.LZMAError)
#: A NUL in a name, a time or an owner that no file can have.
_IMPOSSIBLE = (ValueError, OverflowError)


class _Reader:
    """The read-only file that ``tarfile`` wants, on top of a function that receives."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and (data := self._receive()):
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class _StrictTarInfo(tarfile.TarInfo):
    """Refuses extension headers that would be read into memory whole, and half or damaged headers.

    ``tarfile`` takes the latter for the end of the archive, unless it is the first one.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and not self.isdir() and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]  # documented to be overridden, not stubbed


@contextmanager
def reading(receive: Receive, complaint: str, *, compressed: bool = False) -> Iterator[tarfile.TarFile]:
    """The archive that arrives, for as long as its members are worked on; :func:`members` goes through it.

    Args:
        receive: gives the stream.
        complaint: message of the error for what is no archive, or not a whole one.
        compressed: take one that gzip, bzip2 or xz has compressed as well.

    Raises:
        BangerError: ``invalid``, with ``complaint``.
    """
    try:
        # Only the names of the modes and this class's private hook are missing from the stubs.
        with tarfile.open(fileobj=_Reader(receive), mode="r|*" if compressed else "r|", tarinfo=_StrictTarInfo) as tar:  # type: ignore[call-overload]
            yield tar
    except (*_UNREADABLE, *_IMPOSSIBLE) as error:
        raise BangerError(ErrorKind.INVALID, complaint, cause=str(error)) from error


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Every member once. Its data has to be read before the next one is asked for."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every member for ever
        yield member


class OneTree:
    """Where in one tree the members of an archive belong. The first one tells what its topmost entry is called."""

    def __init__(self) -> None:
        self._top: str | None = None

    def inside(self, name: str) -> tuple[str, ...]:
        """A member's path below the topmost entry, which itself is the empty one. Raises ``invalid`` for any other."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts:
            raise hostile(name, "it points out of the archive")
        if self._top is None:
            self._top = parts[0] if parts else ""
        if not self._top:
            return tuple(parts)
        if parts[:1] != [self._top]:
            raise hostile(name, f'everything was to be below "{self._top}"')
        return tuple(parts[1:])


def hostile(name: str, why: str) -> BangerError:
    """The error for a member that no honest guest sends."""
    message = f'the guest sent an archive that cannot be trusted: "{name}"'
    return BangerError(ErrorKind.INVALID, message, subject=name, cause=why)
