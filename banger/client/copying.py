"""Copying between this host and a guest, with the rules of ``docker cp`` for what ends up where.

A path that ends in ``/.`` means what a directory holds. A directory copied to a path that is not there becomes that
path; copied to a directory it goes into it. A local source that is a symbolic link is followed; links inside are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from posixpath import basename, dirname, normpath

from banger.client import Client, path_of
from banger.client.channel import FrameChannel, exit_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType

OnBytes = Callable[[int], None]
Send = Callable[[bytes], None]
_KEEP_STDERR = 4096


def copy_in(client: Client, vm: str, source: str, target: str, on_bytes: OnBytes = lambda _count: None) -> None:
    """Copy a local file or directory into a guest.

    Args:
        client: for the daemon.
        vm: name, id or prefix.
        source: local path.
        target: path in the guest, taken from its root.
        on_bytes: told how many bytes were sent so far.

    Raises:
        BangerError: ``not_found`` for a missing source or directory, ``conflict`` for a directory onto a file.
    """
    from banger.client.packing import pack  # noqa: PLC0415  # tarfile is not needed before

    path = Path(source)
    if not path.exists():
        raise BangerError(ErrorKind.NOT_FOUND, f'"{source}" is not there', subject=source)
    directory, top = place_in_guest(path, source, guest_path(target), stat(client, vm, target))
    transfer = Transfer(client, vm, "put", {"directory": directory}, on_bytes)
    transfer.feed(lambda send: pack(path.resolve(), top, send))


def copy_out(client: Client, vm: str, source: str, target: str, on_bytes: OnBytes = lambda _count: None) -> list[str]:
    """Copy a file or directory out of a guest; arguments and errors mirror :func:`copy_in`.

    Returns:
        One line for each thing that was left out because it must not come to this host.
    """
    from banger.client.unpacking import unpack  # noqa: PLC0415  # tarfile is not needed before

    kind = stat(client, vm, source)
    if kind == "missing":
        raise BangerError(ErrorKind.NOT_FOUND, f'"{source}" is not there in the guest', subject=source)
    directory, top = place_on_host(Path(target), source, target, kind)
    transfer = Transfer(client, vm, "get", {"path": normpath(guest_path(source))}, on_bytes)
    pieces = transfer.pieces()
    try:
        left_out = unpack(lambda: next(pieces, b""), directory, top)
        for _ in pieces:
            pass  # padding behind the archive
    finally:
        transfer.close()
    return left_out


def place_in_guest(path: Path, source: str, target: str, kind: str) -> tuple[str, str]:
    """Where a copy goes: the guest's directory, and the topmost entry's name there (empty: only what it holds)."""
    clean = normpath(target)
    if kind == "directory":
        contents_only = path.is_dir() and source.endswith("/.")
        return clean, "" if contents_only else (path.resolve() if path.name in ("", "..") else path).name
    if kind == "missing" and target.endswith("/") and not path.is_dir():
        raise BangerError(ErrorKind.NOT_FOUND, f'the guest has no directory "{target}"', subject=target)
    if kind == "other" or (kind == "file" and path.is_dir()):
        wanted = "directory" if path.is_dir() else "file"
        raise BangerError(ErrorKind.CONFLICT, f'"{target}" in the guest is no {wanted}', subject=target)
    return dirname(clean), basename(clean)


def place_on_host(path: Path, source: str, target: str, kind: str) -> tuple[Path, str]:
    """The mirror of :func:`place_in_guest`; makes a directory that is to become the copy."""
    if path.is_dir():
        name = basename(normpath(guest_path(source)))
        return path, "" if source.endswith("/.") and kind == "directory" else name
    if kind != "directory":
        if target.endswith("/") or not path.parent.is_dir():
            missing = target if target.endswith("/") else str(path.parent)
            raise BangerError(ErrorKind.NOT_FOUND, f'there is no directory "{missing}"', subject=missing)
        return path.parent, path.name
    if path.exists():
        raise BangerError(ErrorKind.CONFLICT, f'"{target}" is no directory', subject=target)
    try:
        path.mkdir()
    except OSError as error:
        cause = error.strerror or str(error)
        raise BangerError(ErrorKind.DENIED, f'cannot make "{target}"', subject=target, cause=cause) from error
    return path, ""


def guest_path(path: str) -> str:
    """A path in the guest, from its root."""
    return path if path.startswith("/") else f"/{path}"


def stat(client: Client, vm: str, path: str) -> str:
    """What a path in the guest is: ``directory``, ``file``, ``other`` or ``missing``."""
    answer = client.get(path_of("vms", vm, "files", "stat"), {"path": normpath(guest_path(path))})
    return str(answer["kind"])


class _GuestStoppedError(Exception):
    """The guest's side has ended the transfer early; its EXIT tells why."""


class Transfer:
    """One tar stream to or from a guest."""

    def __init__(
        self, client: Client, vm: str, direction: str, query: dict[str, str], on_bytes: OnBytes = lambda _count: None
    ) -> None:
        """Begin; ``direction`` is ``put`` or ``get``."""
        self._channel: FrameChannel = client.frames(path_of("vms", vm, "files", direction), {}, query)
        self._on_bytes = on_bytes
        self._count = 0
        self._complaint = bytearray()

    def feed(self, produce: Callable[[Send], None]) -> None:
        """Send all that ``produce`` hands to its argument, and wait until the guest has taken it.

        Raises what went wrong in the guest. What ``produce`` raises hangs up.
        """
        try:
            with suppress(_GuestStoppedError):
                produce(self._send)
                self._channel.put(FrameType.STDIN_EOF)
            for _ in self.pieces():
                pass
        finally:
            self.close()

    def _send(self, data: bytes) -> None:
        if not self._channel.send(FrameType.STDIN, data):
            raise _GuestStoppedError
        self._tell(len(data))

    def pieces(self) -> Iterator[bytes]:
        """What the guest sends, until it has ended well. Raises what went wrong there."""
        while (frame := self._channel.receive()) is not None:
            kind, payload = frame
            if kind is FrameType.STDOUT:
                self._tell(len(payload))
                yield payload
            elif kind is FrameType.STDERR:
                self._complaint += payload[:_KEEP_STDERR]
                del self._complaint[_KEEP_STDERR:]
            elif kind is FrameType.EXIT:
                self._check(int(exit_of(payload)["code"]))
                return
        message = "the daemon ended the copy without saying how it ended"
        raise BangerError(ErrorKind.UNKNOWN_OUTCOME, message, hint="banger daemon logs")

    def close(self) -> None:
        """Hang up, if it has not ended."""
        self._channel.close()

    def _check(self, code: int) -> None:
        if code:
            cause = self._complaint.decode(errors="replace").strip() or f"tar ended with status {code}"
            raise BangerError(ErrorKind.INVALID, "the guest could not copy everything", cause=cause)

    def _tell(self, count: int) -> None:
        self._count += count
        self._on_bytes(self._count)
