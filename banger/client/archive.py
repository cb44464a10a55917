"""Reading an untrusted tar stream, member by member, in bounded memory."""

from __future__ import annotations

import math
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from banger.core.errors import BangerError, ErrorKind

Receive = Callable[[], bytes]
"""The next piece of the stream; empty at its end."""

#: What one member may say about itself before its data: names, PAX records, the map of a sparse file. Go's reader has
#: the same limit (``maxSpecialFileSize`` of archive/tar).
_MOST_HEADER_BYTES = 1 << 20
#: What global headers may say in all; they are remembered to the end.
_MOST_GLOBAL_BYTES = 64 << 10
#: Digits on end in PAX records. The regular expressions of older Pythons' ``tarfile`` take the square of it in time.
_MOST_DIGITS = 256
#: Linux: ``PATH_MAX`` less the final NUL. Nobody can have read a file, or made a link, of a longer one.
_LONGEST_PATH = 4095
_LONGEST_SHOWN = 200
#: Seconds: every file system's range and more; what is beyond it is no time of a file.
_MOST_TIME = 1 << 40
_PIECE_BYTES = 256 << 10
_PAX_TYPES = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
_DIGITS = re.compile(rb"\d+")


class _Source:
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


class _Meter:
    """The decompressed stream, which gives ``tarfile`` only so much while it reads the headers of one member.

    It reads them into memory whole, however many there are and however long they say they are.
    """

    def __init__(self, stream: tarfile._Stream) -> None:  # type: ignore[name-defined]  # what tarfile hands to us
        self._stream = stream
        self._left: int | None = _MOST_HEADER_BYTES
        self._ahead = b""
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    @contextmanager
    def headers(self) -> Iterator[None]:
        """What is read in here are headers; what is skipped does not count."""
        self._left = _MOST_HEADER_BYTES
        try:
            yield
        finally:
            self._left = None

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay to be read."""
        self._ahead = self.read(size)
        return self._ahead

    def read(self, size: int) -> bytes:
        if self._ahead:
            taken, self._ahead = self._ahead[:size], self._ahead[size:]
            return taken if len(taken) == size else taken + self.read(size - len(taken))
        if self._left is not None:
            if size > self._left:
                raise tarfile.ReadError(f"the headers of one member take more than {_MOST_HEADER_BYTES} bytes")
            self._left -= size
        return self._stream.read(size)  # type: ignore[no-any-return]


class _StrictTarInfo(tarfile.TarInfo):
    """Refuses half or damaged headers, which ``tarfile`` takes for the end of the archive, but for the first one."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, tar: _StrictTar) -> tarfile.TarInfo:
        if self.type == tarfile.XGLTYPE:
            tar.global_bytes += self.size
            if tar.global_bytes > _MOST_GLOBAL_BYTES:
                raise tarfile.ReadError(f"the global headers take more than {_MOST_GLOBAL_BYTES} bytes")
        if self.type in _PAX_TYPES and self.size > 0:
            _check_records(tar.meter.peek(self._block(self.size))[: self.size])  # type: ignore[attr-defined]
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]  # documented to be overridden, not stubbed


def _check_records(data: bytes) -> None:
    """Raise for PAX records that are malformed, or could keep ``tarfile`` busy for hours."""
    at = 0
    while at < len(data) and data[at] != 0:
        length, _, _ = data[at : at + 20].partition(b" ")
        end = at + int(length) if length.isdigit() else 0
        key, equals, _ = data[at + len(length) + 1 : end].partition(b"=")
        if end > len(data) or data[end - 1 : end] != b"\n" or not key or not equals:
            raise tarfile.ReadError("a PAX header has a malformed record")
        at = end
    if max(map(len, _DIGITS.findall(data)), default=0) > _MOST_DIGITS:
        raise tarfile.ReadError("a PAX header has a number that is longer than any real one")


class _StrictTar(tarfile.TarFile):
    """An archive whose headers are bounded, whoever wrote them."""

    tarinfo = _StrictTarInfo
    global_bytes = 0
    complaint = ""

    def __init__(self, name: object, mode: str, fileobj: object, **options: object) -> None:
        self.meter = _Meter(fileobj)
        super().__init__(name, mode, self.meter, **options)  # type: ignore[arg-type]  # reads the first member at once


@contextmanager
def reading(receive: Receive, complaint: str) -> Iterator[tarfile.TarFile]:
    """The archive that arrives, for as long as its members are worked on; :func:`members` goes through it.

    Args:
        receive: gives the stream.
        complaint: message of the error for what is no archive, or not a whole one.

    Raises:
        BangerError: ``invalid``, with ``complaint``.
    """
    with _parsing(complaint):
        tar = _StrictTar.open(fileobj=_Source(receive), mode="r|")  # type: ignore[call-overload]  # stubs have no such mode
    with tar:
        tar.complaint = complaint
        yield tar


@contextmanager
def _parsing(complaint: str) -> Iterator[None]:
    """Whatever ``tarfile`` and the decompressors raise over bytes that somebody made up means that they are no archive.

    They have no list of it: besides their own errors there are those of slices, numbers and recursion.
    """
    try:
        yield
    except (BangerError, OSError):
        raise
    except Exception as error:
        raise BangerError(ErrorKind.INVALID, complaint, cause=str(error)[:_LONGEST_SHOWN]) from error


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Every member once. Its data has to be read before the next one is asked for.

    Raises:
        BangerError: ``invalid`` for what no file can be.
    """
    assert isinstance(tar, _StrictTar)
    while True:
        with _parsing(tar.complaint), tar.meter.headers():
            member = tar.next()
            if member is None:
                return
            _check_facts(tar, member)
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every member forever
        yield member


def _check_facts(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Raise ``ValueError`` for facts that no file has."""
    if "\0" in member.name or "\0" in member.linkname:
        raise ValueError("a name has a NUL in it")
    if len(os.fsencode(member.name)) > _LONGEST_PATH or len(os.fsencode(member.linkname)) > _LONGEST_PATH:
        raise ValueError(f"a name is longer than {_LONGEST_PATH} bytes")
    if not (math.isfinite(member.mtime) and abs(member.mtime) < _MOST_TIME):
        raise ValueError(f"a file is of the time {member.mtime}")
    if member.size < 0:
        raise ValueError("a file is shorter than nothing")
    end = stored = 0
    for offset, length in _parts(member):
        if not length:
            continue  # how GNU tar marks the end, and fills up a header
        if length < 0 or offset < end or offset + length > member.size:
            raise ValueError("the map of a sparse file is out of order")
        end, stored = offset + length, stored + length
    if member.sparse is not None and stored > tar.offset - member.offset_data:
        raise ValueError("the map of a sparse file is longer than its data")


def content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[tuple[int, bytes]]:
    """A file's data in ascending pieces with their offsets. What is between and behind them is zeros.

    Raises:
        BangerError: ``invalid`` for an archive that ends in the middle.
    """
    assert isinstance(tar, _StrictTar)
    with _parsing(tar.complaint):
        tar.meter.seek(member.offset_data)
    for start, length in _parts(member):
        offset, end = start, start + length
        while offset < end:
            with _parsing(tar.complaint):
                piece = tar.meter.read(min(_PIECE_BYTES, end - offset))
                if not piece:
                    raise EOFError("unexpected end of data")
            yield offset, piece
            offset += len(piece)


def _parts(member: tarfile.TarInfo) -> Sequence[tuple[int, int]]:
    """Where a file has data: offsets and lengths."""
    found: Sequence[tuple[int, int]] | None = member.sparse  # type: ignore[assignment]  # the stubs have another type
    return ((0, member.size),) if found is None else found


class ContentFile:
    """A file's data to read from, with zeros for its holes."""

    def __init__(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._pieces = content(tar, member)
        self._at, self._size = 0, member.size
        self._start, self._piece = 0, b""

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""
        parts, left = [], min(size, self._size - self._at)
        while left:
            if self._at >= self._start + len(self._piece):
                self._start, self._piece = next(self._pieces, (self._size, b""))
            if self._at < self._start:
                part = bytes(min(left, self._start - self._at))
            else:
                part = self._piece[self._at - self._start :][:left]
            parts.append(part)
            self._at, left = self._at + len(part), left - len(part)
        return b"".join(parts)


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
    shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
    message = f'the guest sent an archive that cannot be trusted: "{shown}"'
    return BangerError(ErrorKind.INVALID, message, subject=shown, cause=why)
