"""asyncssh's callbacks for one channel, turned into awaitables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncssh

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExitStatus, Stream
from banger.guest.session_output import OutputQueue


class Wire(asyncssh.SSHClientSession[bytes]):
    """asyncssh's callbacks for one channel, turned into things to wait for.

    Attributes:
        channel: ``None`` until the guest has given one.
        exit: how the command ended, or why nobody knows.
        closed: nothing comes after this.
        writable: input may be sent; set for good once ``closed`` is.
    """

    def __init__(self, vm_id: str, when_closed: Callable[[bool], None]) -> None:
        """Belong to a session, which says what the arguments mean."""
        self._vm_id = vm_id
        self._when_closed = when_closed
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None
        self.output = OutputQueue(self._pause, self._resume)
        self.exit: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._output_ended = False
        self.closed = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()

    def require_channel(self) -> asyncssh.SSHClientChannel[bytes]:
        """The channel of a session that was started."""
        assert self.channel is not None, "the session was not started"
        return self.channel

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """The guest gave a channel."""
        self.channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Output came."""
        self.output.put(Stream.STDERR if datatype == asyncssh.EXTENDED_DATA_STDERR else Stream.STDOUT, data)

    def eof_received(self) -> bool:
        """Both outputs have ended; True keeps our own direction open."""
        self._output_ended = True
        self.output.end()
        return True

    def pause_writing(self) -> None:
        """The window for input is full."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Input may be sent again."""
        self.writable.set()

    def exit_status_received(self, status: int) -> None:
        """The command ended by itself."""
        self.exit.set_result(ExitStatus(status))

    def exit_signal_received(self, signal: str, _core_dumped: bool, _message: str, _language: str) -> None:
        """The command was killed."""
        self.exit.set_result(ExitStatus.from_signal(signal))

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel was closed, or the whole connection with it."""
        # dropbear tells the status after the last output and right before the close. asyncssh may leave out the end of
        # the output, if all of that came at once.
        complete = exc is None and self.exit.done()
        silent_end = exc is None and self._output_ended
        error = BangerError(
            ErrorKind.UNKNOWN_OUTCOME,
            "the command ended without an exit status" if silent_end else "lost the connection to the guest",
            subject=self._vm_id,
            cause=str(exc or ""),
            hint=f"banger vm why {self._vm_id}",
        )
        if not self.exit.done():
            self.exit.set_exception(error)
            self.exit.exception()  # marks it as seen: perhaps nobody waits
        self.output.end(None if complete else error)
        self.closed.set()
        self.writable.set()
        self._when_closed(complete)

    def _pause(self) -> None:
        self.require_channel().pause_reading()

    def _resume(self) -> None:
        self.require_channel().resume_reading()
