"""One command in a guest: its streams, its signals, its end. Belongs to the event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

import asyncssh

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExitStatus, Stream, Terminal, check_signal
from banger.guest.session_wire import Wire

#: Bytes the guest may send ahead of the reader (the ssh window). No throughput is gained by more.
RECEIVE_WINDOW = 512 << 10
#: How long a command whose caller has left may take to heed the hang-up before it is killed.
HANGUP_GRACE_S = 1.0


#: What an answer of a tool of banger's own may have, and how long it may take, in an emulated guest on a busy host.
MAX_ANSWER_BYTES, ANSWER_TIMEOUT_S = 64 << 10, 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool said, and how it ended."""

    status: ExitStatus
    stdout: bytes
    stderr: bytes


class GuestSession:
    """A command that runs in a guest.

    Read :meth:`output` to its end, then ask :meth:`wait`. A reader that does not keep up stops the command, so that a
    session never holds much more than twice ``RECEIVE_WINDOW``. Always :meth:`close` in the end: it ends a command that
    still runs.
    """

    def __init__(
        self, vm_id: str, when_closed: Callable[[bool], None], end_all: Callable[[], asyncio.Task[None]] | None = None
    ) -> None:
        """Prepare a session; :meth:`start` runs the command.

        Args:
            vm_id: what errors name.
            when_closed: called once it is over, with True if the connection can serve another command.
            end_all: begins to kill all that the command has started; ``None`` if it starts nothing.
        """
        self._vm_id = vm_id
        self._wire = Wire(vm_id, when_closed)
        self._end_all = end_all
        self._ending: asyncio.Task[None] | None = None

    @property
    def opened(self) -> bool:
        """True once the guest has given it a channel: from then on the command may have run."""
        return self._wire.channel is not None

    async def start(self, connection: asyncssh.SSHClientConnection, command: str, tty: Terminal | None = None) -> None:
        """Run ``command``. Raises what asyncssh raises; :attr:`opened` tells whether trying again is safe."""
        await connection.create_session(
            lambda: self._wire,
            command,
            encoding=None,
            window=RECEIVE_WINDOW,
            request_pty="force" if tty else False,
            term_type=tty.term if tty else None,
            term_size=(tty.columns, tty.rows) if tty else None,
        )

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Both streams in the order they came, until both have ended. For one reader.

        Raises:
            BangerError: ``unknown_outcome`` if the connection was lost before the end.
        """
        while (chunk := await self._wire.output.get()) is not None:
            yield chunk

    async def write_stdin(self, data: bytes) -> bool:
        """Send input once the guest has taken most of what came before. False once nobody reads input any more.

        The guest does not tell when a command closes its input; then this may wait until the command ends.
        """
        await self._wire.writable.wait()
        try:
            self._wire.require_channel().write(data)
        except OSError:  # the command has ended, or write_eof was called
            return False
        return True

    async def answer(self) -> Answer:
        """The short answer of one of banger's own tools, then the end of the session.

        Whatever is read from a guest has a bound and a deadline: its tools may be anybody's.

        Raises:
            BangerError: ``invalid`` for more than ``MAX_ANSWER_BYTES``, ``timeout`` after ``ANSWER_TIMEOUT_S``, and
                what :meth:`output` and :meth:`wait` raise.
        """
        said = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                self.write_eof()
                async for stream, data in self.output():
                    said[stream] += data
                    if sum(map(len, said.values())) > MAX_ANSWER_BYTES:
                        message = f"the guest answers with more than {MAX_ANSWER_BYTES} bytes"
                        raise BangerError(ErrorKind.INVALID, message, subject=self._vm_id)
                status = await self.wait()
        except TimeoutError:
            message = f"the guest did not answer within {ANSWER_TIMEOUT_S:g} s"
            raise BangerError(ErrorKind.TIMEOUT, message, subject=self._vm_id) from None
        finally:
            await self.close()
        return Answer(status, bytes(said[Stream.STDOUT]), bytes(said[Stream.STDERR]))

    def write_eof(self) -> None:
        """End the input. Idempotent."""
        self._wire.require_channel().write_eof()

    def send_signal(self, name: str) -> None:
        """Signal the command by the name without ``SIG``; nothing happens if it has ended. Raises ``usage``."""
        with suppress(OSError):
            self._wire.require_channel().send_signal(check_signal(name))

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        with suppress(OSError):
            self._wire.require_channel().change_terminal_size(columns, rows)

    async def wait(self) -> ExitStatus:
        """How the command ended, as soon as the guest says so (unread output may be left).

        Raises:
            BangerError: ``unknown_outcome`` if the connection was lost, or if the guest closed the channel without
                a word (dropbear does when it has no name for the signal that killed the command: ``SIGBUS``, say).
        """
        return await asyncio.shield(self._wire.exit)

    async def close(self) -> None:
        """Hang up: a command that still runs gets ``HUP``, then, after ``HANGUP_GRACE_S``, all it has started ``KILL``.

        Of a command that has ended, nothing is touched: what it left in the background was meant to stay. Idempotent,
        never raises. Cancelled, it kills at once. The connection is free again once the guest confirms the end.
        """
        wire = self._wire
        if wire.channel is None or wire.closed.is_set():
            if self._ending is not None:
                await asyncio.shield(self._ending)
            return
        wire.output.discard()
        abandoned = not wire.exit.done()
        try:
            if abandoned:
                self.send_signal("HUP")
            with suppress(TimeoutError):
                async with asyncio.timeout(HANGUP_GRACE_S):
                    await wire.closed.wait()
        finally:
            if not wire.closed.is_set():
                self.send_signal("KILL")  # dropbear signals the one process that it started
            if abandoned and self._end_all is not None and self._ending is None:
                self._ending = self._end_all()
        if self._ending is not None:
            await asyncio.shield(self._ending)
