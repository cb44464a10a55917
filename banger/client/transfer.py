"""One tar stream to or from a guest, and the kind of a path in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from posixpath import normpath

from banger.client import Client, path_of
from banger.client.channel import ClientFrameChannel, exit_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType

OnBytes = Callable[[int], None]
Send = Callable[[bytes], None]
_KEEP_STDERR = 1 << 20
_MOST_CAUSE = 4096
_LEFT_OUT = "left out: "


def ignore_bytes(_count: int) -> None:
    """Nobody wants to know how far a copy is."""


@dataclass(frozen=True, slots=True)
class PathInfo:
    """What a path in a guest is: ``kind`` is ``directory``, ``file``, ``other`` or ``missing``, behind a link too.

    Attributes:
        path: from the guest's root, without a slash at its end.
        kind: of a link, what it leads to.
        is_link: the path itself is a symbolic link.
        real_path: where that leads, even if nothing is there.
    """

    path: str
    kind: str
    is_link: bool = False
    real_path: str = ""

    @property
    def followed(self) -> PathInfo:
        """What is behind the link, if it is one."""
        return PathInfo(self.real_path or self.path, self.kind) if self.is_link else self


def guest_path(path: str) -> str:
    """A path in the guest, from its root. Raises ``usage`` for bytes that no request can hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        message = f'"{path}" is not valid UTF-8, as a path in a guest has to be'
        hint = "copy the directory that it is in"
        raise BangerError(ErrorKind.USAGE, message, subject=path, hint=hint) from None
    return path if path.startswith("/") else f"/{path}"


def stat_path(client: Client, vm: str, path: str) -> PathInfo:
    """Ask the guest what ``path`` is."""
    clean = normpath(guest_path(path))
    answer = client.get(path_of("vms", vm, "files", "stat"), {"path": clean})
    return PathInfo(clean, str(answer["kind"]), bool(answer.get("is_link")), str(answer.get("real_path", "")))


class _GuestStoppedError(Exception):
    """The guest's side has ended the transfer early; its EXIT tells why."""


class Transfer:
    """One tar stream to or from a guest."""

    def __init__(
        self, client: Client, vm: str, direction: str, query: dict[str, str], on_bytes: OnBytes = ignore_bytes
    ) -> None:
        """Begin; ``direction`` is ``put`` or ``get``."""
        self._channel: ClientFrameChannel = client.frames(path_of("vms", vm, "files", direction), {}, query)
        self._on_bytes = on_bytes
        self._count = 0
        self._errors = bytearray()

    def feed(self, produce: Callable[[Send], None]) -> None:
        """Send all that ``produce`` hands to its argument, and wait until the guest has it on its disk.

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
        if not self._channel.send_stdin(data):
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
                self._errors += payload[: _KEEP_STDERR - len(self._errors)]
            elif kind is FrameType.EXIT:
                self._check(int(exit_of(payload)["code"]))
                return
        message = "the daemon ended the copy without saying how it ended"
        raise BangerError(ErrorKind.UNKNOWN_OUTCOME, message, hint="banger daemon logs")

    @property
    def left_out(self) -> list[str]:
        """What the guest said it could not send, a line each; complete once :meth:`pieces` has come to its end."""
        return [line.removeprefix(_LEFT_OUT) for line in self._lines() if line.startswith(_LEFT_OUT)]

    def close(self) -> None:
        """Hang up, if it has not ended."""
        self._channel.close()

    def _lines(self) -> list[str]:
        return self._errors.decode(errors="replace").splitlines()

    def _check(self, code: int) -> None:
        if code:
            complaints = [line for line in self._lines() if not line.startswith(_LEFT_OUT)]
            cause = "\n".join(complaints).strip()[:_MOST_CAUSE] or f"tar ended with status {code}"
            raise BangerError(ErrorKind.INVALID, "the guest could not copy everything", cause=cause)

    def _tell(self, count: int) -> None:
        self._count += count
        self._on_bytes(self._count)
