"""The port for a running guest: commands and files, independent of the transport.

All of it lives in the event loop. What a guest sends is held within bounds by whoever implements this; how long it may
take is up to the caller, who ends a wait by cancelling it, but for the short answers of banger's own tools.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from banger.core.exec import ExecRequest, ExitStatus, Stream


class GuestProcess(Protocol):
    """A command that runs in a guest.

    Read :meth:`output` to its end, then ask :meth:`wait`. A reader that does not keep up stops the command. Always
    :meth:`close` in the end: it ends a command that still runs.
    """

    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Both streams in the order they came, until both have ended. For one reader.

        Raises:
            BangerError: ``unknown_outcome`` if the guest was lost before the end.
        """
        ...

    async def write_stdin(self, data: bytes) -> bool:
        """Send input once the guest has taken most of what came before. False once nobody reads input any more."""
        ...

    def write_eof(self) -> None:
        """End the input. Idempotent."""
        ...

    def send_signal(self, name: str) -> None:
        """Signal the command by the name without ``SIG``; nothing happens if it has ended. Raises ``usage``."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        ...

    async def wait(self) -> ExitStatus:
        """How the command ended, as soon as the guest says so (unread output may be left).

        Raises:
            BangerError: ``unknown_outcome`` if the guest was lost, or does not tell.
        """
        ...

    async def close(self) -> None:
        """Hang up: a command that still runs gets ``HUP``, and soon after all that it has started ``KILL``.

        Of a command that has ended, nothing is touched: what it left in the background was meant to stay. Idempotent,
        never raises. Cancelled, it kills at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class GuestPath:
    """What a path in a guest is.

    Attributes:
        kind: ``directory``, ``file``, ``other`` or ``missing``; of a symbolic link, what it leads to.
        is_link: the path itself is a symbolic link.
        real_path: where the link leads, all links on the way resolved; if nothing is there, where it would be. Empty
            if it is no link.
    """

    kind: str
    is_link: bool = False
    real_path: str = ""


class GuestFiles(Protocol):
    """The files of one guest. Paths are absolute."""

    async def stat(self, path: str) -> GuestPath:
        """What ``path`` is. Raises ``timeout``, ``invalid`` or ``unavailable`` if the guest does not tell."""
        ...

    async def put(self, directory: str) -> GuestProcess:
        """Unpack the tar archive (ustar or GNU) that is its input; ends well once all of it is on the guest's disk."""
        ...

    async def get(self, path: str) -> GuestProcess:
        """Pack ``path``: its output is a tar archive, and what was left out a line each on its standard error.

        The archive's one top-level entry is the path's last part, ``.`` if that is all there is or it ends in ``/.``.
        """
        ...


class RunningGuest(Protocol):
    """One running guest."""

    async def ssh(self) -> GuestProcess:
        """Connect to banger's own ssh server in it, which is started if it does not run.

        The connection's bytes are its input and its standard output; it is over once the server has ended its side.
        Raises as :meth:`exec` does.
        """
        ...

    @property
    def files(self) -> GuestFiles:
        """Its files."""
        ...

    async def exec(self, request: ExecRequest) -> GuestProcess:
        """Start a command of the user's.

        Raises:
            BangerError: ``usage`` for a command that cannot be sent; ``unavailable`` if the guest cannot be reached
                or refuses; ``unknown_outcome`` if the guest was lost when the command had perhaps begun.
        """
        ...
