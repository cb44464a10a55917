"""One connection to one guest's agent, from the greeting to its end: the only place that reads what a guest sends.

The other end belongs to the guest. What it may make this process hold or do is bounded by what it was given: credit
for data, one answer for each request, and so many bytes before the answer to the greeting.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import cast

from loguru import logger

from banger.agent.exchange import Exchange
from banger.agent.heartbeat import GONE, Heartbeat
from banger.agent.messages import ExecFlag, Op, Request
from banger.agent.stream import AgentStream
from banger.agent.wire import (
    MAX_FRAME,
    MAX_STREAMS,
    Feature,
    Frame,
    Kind,
    Welcome,
    WireError,
)
from banger.core.errors import BangerError, ErrorKind

#: Data of all streams that may be under way to us: enough for the rate, little enough for an answer behind it.
SESSION_WINDOW = 256 << 10
#: What all streams together may hold of a guest's output; the first ones get the most that is of use.
_BUDGET, _MOST_WINDOW, _LEAST_WINDOW = 2 << 20, 256 << 10, 8 << 10
#: Data waits while more than the first is still to be sent, until the second is left; both in bytes.
_WRITE_HIGH, _WRITE_LOW = 128 << 10, 32 << 10
#: Credit and signals never wait. With more than this unread the session is over: it is a guest that sends and does not
#: read, or signals without end.
_MOST_UNREAD = 4 << 20
#: So much is taken from a guest in one turn of the event loop, however small its frames are: others wait meanwhile.
_TURN_BYTES = MAX_FRAME
#: How long the result of a cancelled request may take before the agent is asked whether it lives, and its answer to
#: that, once somebody has a new request: until then it may as well be paused.
_RESULT_PATIENCE_S, _PONG_PATIENCE_S = 1.0, 10.0


class AgentSession(asyncio.BufferedProtocol):
    """Belongs to the event loop's thread.

    Attributes:
        greeted: the agent's answer to the greeting, or why there is none.
        over: nothing comes after this.
        reason: why it is over.
    """

    def __init__(self, vm_id: str, is_attended: Callable[[], bool] = lambda: True) -> None:
        """Greet as soon as it is connected. ``is_attended``: see :class:`Heartbeat`."""
        self.greeted: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.reason = ""
        self._vm_id = vm_id
        self._exchange = Exchange(SESSION_WINDOW)
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, AgentStream] = {}
        self._last_number = 0
        self._most_streams = 0
        self._features = 0
        self._writable = True
        self._room = asyncio.Event()
        self._buffer = bytearray(_TURN_BYTES)
        self._heartbeat = Heartbeat(self, is_attended)
        self._pings: list[bytes] = []  # what the agent has to repeat; it answers the last of several
        self._ping = self._beat = b""  # of these, what somebody with a request waits for, and what nobody does
        self._answered = asyncio.Event()
        self._answered.set()

    # -- for whoever has a request ---------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """The agent has answered, and the connection stands."""
        return bool(self._exchange.tag) and not self.over.is_set()

    @property
    def is_writable(self) -> bool:
        """The other side takes what is sent."""
        return self._writable and not self.over.is_set()

    @property
    def streams(self) -> int:
        """How many requests are being served; of one that was cancelled nobody knows for how long it stays."""
        return sum(not stream.is_cancelled for stream in self._streams.values())

    def greet(self) -> None:
        """Greet, or greet anew if there was no answer: of several greetings, only the last one's answer counts."""
        if self._transport is None or self.greeted.done() or not self._writable:
            return
        self._transport.write(self._exchange.greet())

    async def room(self) -> None:
        """Wait until the guest has taken what it was sent, or the session is over."""
        while not (self._writable or self.over.is_set()):
            self._room.clear()
            await self._room.wait()

    def open(self, request: Request) -> AgentStream:
        """Send a request; to a guest with :meth:`room` for it.

        Raises:
            BangerError: ``exhausted`` if the guest serves as many as it can; ``usage`` if the request is too large.
        """
        if len(self._streams) >= self._most_streams:
            message = f"the guest serves {self._most_streams} commands and connections already"
            raise BangerError(ErrorKind.EXHAUSTED, message, subject=self._vm_id, hint="wait for one of them to end")
        number = self._last_number + 1
        window = self._window()
        if request.op is Op.EXEC and not request.has_input and self._features & Feature.NO_INPUT:
            request = request._replace(flags=request.flags | ExecFlag.NO_INPUT)
        try:
            frames = list(request.frames(number, window))
        except ValueError as error:
            hint = "send it on standard input, or copy it with banger vm cp"
            raise BangerError(ErrorKind.USAGE, "the command is too long", cause=str(error), hint=hint) from error
        stream = self._streams[number] = AgentStream(number, window, self, has_input=request.has_input)
        self._last_number = number
        self._write(b"".join(frame.encode(self._exchange.tag) for frame in frames))
        self._heartbeat.run()
        return stream

    def send(self, frame: Frame) -> None:
        """Send a frame, unless the session is over."""
        self._write(frame.encode(self._exchange.tag))

    def _write(self, data: bytes) -> None:
        if self._transport is None or not self.is_live:
            return
        self._transport.write(data)
        if self._unread > _MOST_UNREAD:
            logger.warning("{}: the guest's agent does not read what it is sent", self._vm_id)
            self.end("its agent does not read what it is sent")

    def expect_result(self, number: int) -> None:
        """A request was cancelled, so its result has to come soon; else the agent is asked whether it lives."""
        asyncio.get_running_loop().call_later(_RESULT_PATIENCE_S, self._miss, number)

    def ping(self) -> None:
        """Ask the agent whether it lives."""
        if self._answered.is_set() and self.is_live:
            self._answered.clear()
            self._ping = self._ask()

    def beat(self) -> None:
        """The same, for the heartbeat."""
        if self._beat not in self._pings and self.is_live:
            self._beat = self._ask()

    @property
    def is_waited_for(self) -> bool:
        """Somebody waits for what the agent will say."""
        return bool(self._streams) and self.is_live

    async def answers(self) -> bool:
        """Whether the agent has answered what it was asked. The session with one that does not is over."""
        try:
            async with asyncio.timeout(_PONG_PATIENCE_S):
                await self._answered.wait()
        except TimeoutError:
            logger.warning("{}: the guest's agent does not answer", self._vm_id)
            self.end("its agent does not answer")
        return self.is_live

    def end(self, reason: str) -> None:
        """Close the connection; what runs has an unknown outcome."""
        self._finish(reason)
        if self._transport is not None:
            self._transport.abort()

    @property
    def _unread(self) -> int:
        """Bytes that wait for the other side, besides what the kernel holds."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _window(self) -> int:
        granted = sum(stream.window for stream in self._streams.values())
        return max(_LEAST_WINDOW, min(_MOST_WINDOW, (_BUDGET - granted) // 4))

    # -- asyncio's side --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_LOW)
        self.greet()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  # what asyncio would like
        """Where the next turn's bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """They are there."""
        self._heartbeat.heard()
        self.receive(bytes(memoryview(self._buffer)[:nbytes]))

    def receive(self, data: bytes) -> None:
        """Take what the agent says; what it must not say ends the session."""
        if self.over.is_set():
            return
        try:
            for frame in self._exchange.receive(data):
                self._note_welcome()
                self._receive(frame)
            self._note_welcome()
        except WireError as error:
            words = self._exchange.describe(error)
            logger.warning("{}: lost the session: {}", self._vm_id, words)
            self.end(words)

    def pause_writing(self) -> None:
        """The other side is behind."""
        self._writable = False

    def resume_writing(self) -> None:
        """The other side has caught up."""
        self._writable = True
        self._room.set()
        for stream in self._streams.values():
            stream.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """The VMM is gone, or the connection was closed."""
        self._finish(str(exc or "the connection was closed"))

    # -- inside ----------------------------------------------------------------------------------------

    def _note_welcome(self) -> None:
        welcome = self._exchange.welcome
        if welcome is None or self.greeted.done():
            return
        self._most_streams = min(welcome.most_streams, MAX_STREAMS)
        self._features = welcome.features
        if welcome.ended_streams:
            logger.info("{}: {} commands of an earlier daemon were ended", self._vm_id, welcome.ended_streams)
        self.greeted.set_result(welcome)

    def _ask(self) -> bytes:
        word = secrets.token_bytes(8)
        self._pings.append(word)
        self.send(Frame(0, Kind.PING, payload=word))
        return word

    def _miss(self, number: int) -> None:
        if number in self._streams:
            self.ping()

    def _receive(self, frame: Frame) -> None:
        if frame.kind is Kind.PONG and frame.payload in self._pings:
            del self._pings[: self._pings.index(frame.payload) + 1]
            if self._ping not in self._pings:
                self._answered.set()
            return
        stream = self._streams.get(frame.stream)
        if stream is None:
            raise WireError(f"a frame of kind {frame.kind} for stream {frame.stream}, which there is not")
        if credit := self._exchange.credit_due():
            self.send(credit)
        stream.receive(frame)
        if frame.kind is Kind.RESULT:
            del self._streams[frame.stream]

    def _finish(self, reason: str) -> None:
        if self.over.is_set():
            return
        self.over.set()
        self._heartbeat.stop()
        self.reason = reason
        self._room.set()
        self._answered.set()
        hint = f"banger vm {'restart' if reason == GONE else 'why'} {self._vm_id}"
        if not self.greeted.done():
            message = "the guest does not answer"
            self.greeted.set_exception(
                BangerError(ErrorKind.UNAVAILABLE, message, subject=self._vm_id, cause=reason, hint=hint)
            )
            self.greeted.exception()  # marks it as seen
        message = "lost the connection to the guest"
        lost = BangerError(ErrorKind.UNKNOWN_OUTCOME, message, subject=self._vm_id, cause=reason, hint=hint)
        for stream in list(self._streams.values()):
            stream.lose(lost)
        self._streams.clear()
