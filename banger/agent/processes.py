"""A process started in a guest by the agent, as :class:`banger.core.ports.GuestProcess`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from signal import Signals

from banger.agent.messages import Exit, Result, Status, Target
from banger.agent.stream import AgentStream
from banger.agent.wire import WireError
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExitStatus, Stream, check_signal
from banger.core.plain_text import printable

#: How long a command whose caller has left may take to heed the hang-up before it is killed.
HANGUP_GRACE_S = 1.0
#: How long the agent may take to say that it is over, after that.
_END_TIMEOUT_S = 10.0
#: So much is told of what an agent says; the longest of its own are a path and a few words.
_MOST_WORDS = 1024


class AgentProcess:
    """A request that goes on for a while: a command, or a copy."""

    def __init__(self, vm_id: str, stream: AgentStream, status_of: Callable[[Result], ExitStatus]) -> None:
        """``status_of`` reads the result; it may raise ``WireError``."""
        self._vm_id = vm_id
        self._stream = stream
        self._status_of = status_of

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Both streams in the order they came."""
        while (chunk := await self._stream.read()) is not None:
            yield chunk
        result = self._stream.result
        if (
            result.done() and (words := _complaint(result.result())) is not None
        ):  # the output may end before it is there
            yield Stream.STDERR, words

    async def write_stdin(self, data: bytes) -> bool:
        """Send input as the guest takes it. False once nobody reads input any more."""
        return await self._stream.write(data)

    def write_eof(self) -> None:
        """End the input."""
        self._stream.write_eof()

    def send_signal(self, name: str) -> None:
        """Signal the command's process."""
        self._stream.signal(Signals[f"SIG{check_signal(name)}"])

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        self._stream.resize(rows, columns)

    async def wait(self) -> ExitStatus:
        """How it ended, once the guest has sent what it had written by then."""
        result = await asyncio.shield(self._stream.result)
        try:
            return self._status_of(result)
        except WireError as error:
            message = "the guest does not tell how the command ended"
            raise BangerError(ErrorKind.UNKNOWN_OUTCOME, message, subject=self._vm_id, cause=str(error)) from error

    async def close(self) -> None:
        """Hang up, and wait until all that an abandoned command has started is ended."""
        stream = self._stream
        if stream.result.done():
            stream.discard()
            return
        stream.cancel()
        try:
            async with asyncio.timeout(HANGUP_GRACE_S + _END_TIMEOUT_S):
                with suppress(BangerError):
                    await asyncio.shield(stream.result)
        except TimeoutError:
            pass  # a guest that does not answer is no better off with the news
        except asyncio.CancelledError:
            stream.signal(Signals.SIGKILL, Target.ALL)
            raise


class AgentConnection(AgentProcess):
    """A connection to a socket in the guest. It is over once the guest's side has ended."""

    def __init__(self, vm_id: str, stream: AgentStream) -> None:
        super().__init__(vm_id, stream, status_of_copy)

    async def wait(self) -> ExitStatus:
        """When the guest's side has ended: a server that has said all has nobody to wait for."""
        await self._stream.ended()
        return ExitStatus(0)


class NeverRan:
    """A command that the guest could not start: a line on standard error, and the exit code that a shell has for it."""

    def __init__(self, words: str, code: int) -> None:
        self._words = words
        self._code = code

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """The line."""
        yield Stream.STDERR, f"banger: {self._words}\n".encode()

    async def write_stdin(self, data: bytes) -> bool:  # noqa: ARG002
        """Nobody reads it."""
        return False

    def write_eof(self) -> None:
        """Nobody hears it."""

    def send_signal(self, name: str) -> None:
        """Nobody hears it."""
        check_signal(name)

    def resize(self, rows: int, columns: int) -> None:
        """Nobody hears it."""

    async def wait(self) -> ExitStatus:
        """The code."""
        return ExitStatus(self._code)

    async def close(self) -> None:
        """Nothing to end."""


def status_of_exec(result: Result) -> ExitStatus:
    """How a command ended. Raises ``WireError`` if the result does not say."""
    if result.status:
        raise WireError(describe(result))
    ended = Exit.decode(result.fields)
    if not ended.killed:
        return ExitStatus(ended.code)
    try:
        return ExitStatus.from_signal(Signals(ended.code).name.removeprefix("SIG"))
    except ValueError:
        return ExitStatus(128 + ended.code % 128, str(ended.code))


def status_of_copy(result: Result) -> ExitStatus:
    """How a copy went: 0, or 1."""
    return ExitStatus(1 if result.status else 0)


def describe(result: Result) -> str:
    """Why a request failed, in words: a line that is safe in a terminal, whatever the guest said."""
    try:
        name = Status(result.status).name.lower().replace("_", " ")
    except ValueError:
        name = f"status {result.status}"
    words = result.message[:_MOST_WORDS]
    return printable(words if words == result.message else f"{words}…") or name


def _complaint(result: Result) -> bytes | None:
    """What a copy that failed has to say."""
    return f"banger: {describe(result)}\n".encode() if result.status else None
