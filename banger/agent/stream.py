"""One stream of a session with a guest's agent: a request, its bytes both ways under credit, its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from banger.agent.backlog import Backlog
from banger.agent.messages import Result, Target
from banger.agent.stream_state import StreamState
from banger.agent.wire import MAX_PAYLOAD, Flag, Frame, Kind
from banger.core.errors import BangerError
from banger.core.exec import Stream


class Sender(Protocol):
    """Where a stream's frames go."""

    @property
    def is_writable(self) -> bool:
        """Bulk data may be sent: the other side keeps pace."""
        ...

    def send(self, frame: Frame) -> None:
        """Send a frame; nothing happens once the session is over."""
        ...

    def expect_result(self, number: int) -> None:
        """The result of that stream has to come now."""
        ...


class AgentStream:
    """Belongs to the event loop's thread. Frames of this stream are handed to :meth:`receive` by its session.

    Attributes:
        started: what was asked for runs, or there is a result.
        is_cancelled: nobody is interested any more.
        result: how it ended, or why nobody knows.
    """

    def __init__(self, number: int, window: int, sender: Sender, *, has_input: bool = True) -> None:
        """``window`` is the credit for output that its OPEN gives; without input, its end was sent with that."""
        self.started = asyncio.Event()
        self.is_cancelled = False
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._sender = sender
        self._backlog = Backlog()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._state = StreamState(number, window)
        self._discarding = False
        self._input_ended = not has_input

    @property
    def number(self) -> int:
        """In the session."""
        return self._state.number

    @property
    def window(self) -> int:
        """The most output that may wait to be read, in bytes."""
        return self._state.window

    @property
    def was_started(self) -> bool:
        """The agent said that what was asked for runs."""
        return self._state.was_started

    # -- from the guest --------------------------------------------------------------------------------

    def receive(self, frame: Frame) -> None:
        """Take a frame of the agent's. Raises :class:`WireError` for one that must not come now."""
        self._state.receive(frame)
        match frame.kind:
            case Kind.DATA:
                if not self._discarding:
                    self._backlog.put(frame.payload, is_error=Flag.ERR in frame.flags)
                    self._news.set()
            case Kind.STARTED:
                self.started.set()
            case Kind.CREDIT | Kind.STOP:
                self._room.set()
        if (result := self._state.result) is not None:
            self._end(lambda: self.result.set_result(result))

    def lose(self, error: BangerError) -> None:
        """The session is over before the stream is."""
        if self.result.done():
            return
        self._end(lambda: self.result.set_exception(error))
        self.result.exception()  # marks it as seen: perhaps nobody waits

    def make_room(self) -> None:
        """The session is writable again."""
        self._room.set()

    def _end(self, resolve: Callable[[], None]) -> None:
        resolve()
        self.started.set()
        self._news.set()
        self._room.set()

    # -- to the guest ----------------------------------------------------------------------------------

    async def read(self) -> tuple[Stream, bytes] | None:
        """The next bytes of one output, which gives the guest credit for as many; ``None`` at the end.

        Raises:
            BangerError: what :meth:`lose` was told, once all that had come is read.
        """
        while not self._backlog:
            if self.result.done():
                self.result.result()
                return None
            if self._state.output_ended:
                return None
            self._news.clear()
            await self._news.wait()
        stream, data = self._backlog.take()
        if due := self._state.take(len(data)):
            self._send(Kind.CREDIT, payload=due.to_bytes(4, "little"))
        return stream, data

    async def ended(self) -> None:
        """Wait until the guest's side has ended. Raises what :meth:`lose` was told."""
        while not (self._state.output_ended or self.result.done()):
            self._news.clear()
            await self._news.wait()
        if self.result.done():
            self.result.result()

    async def write(self, data: bytes) -> bool:
        """Send input as the guest takes it. False once nobody reads input any more."""
        rest = memoryview(data)
        while rest:
            if not self._is_heard:
                return False
            if not self._state.input_credit or not self._sender.is_writable:
                self._room.clear()
                await self._room.wait()
                continue
            piece = rest[: min(self._state.input_credit, MAX_PAYLOAD)]
            self._state.send(len(piece))
            self._sender.send(Frame(self.number, Kind.DATA, payload=bytes(piece)))
            rest = rest[len(piece) :]
            await asyncio.sleep(0)  # others' turn
        return self._is_heard

    @property
    def _is_heard(self) -> bool:
        return not (self._state.was_stopped or self._input_ended or self.result.done())

    def write_eof(self) -> None:
        """End the input. Idempotent."""
        if not self._input_ended:
            self._input_ended = True
            self._send(Kind.DATA, Flag.END)

    def cancel(self) -> None:
        """Say that nobody is interested any more; what comes is thrown away until the result. Idempotent."""
        self.discard()
        if not (self.is_cancelled or self.result.done()):
            self.is_cancelled = True
            self._send(Kind.CANCEL)
            self._sender.expect_result(self.number)

    def take_back(self) -> None:
        """Cancel, even what the guest says it has done: as if it had not been asked for, where it is undone by that."""
        if self.result.done():
            self._sender.send(Frame(self.number, Kind.CANCEL))
        else:
            self.cancel()

    def discard(self) -> None:
        """Throw away what is here and what comes."""
        self._discarding = True
        self._backlog.clear()

    def signal(self, number: int, whom: Target = Target.PROCESS) -> None:
        """Signal a command; nothing happens if it has ended."""
        self._send(Kind.SIGNAL, payload=bytes((whom, number)))

    def resize(self, rows: int, columns: int) -> None:
        """Give a command's terminal another size."""
        self._send(Kind.RESIZE, payload=rows.to_bytes(2, "little") + columns.to_bytes(2, "little"))

    def _send(self, kind: Kind, flags: Flag = Flag.NONE, payload: bytes = b"") -> None:
        if not self.result.done():
            self._sender.send(Frame(self.number, kind, flags, payload))
