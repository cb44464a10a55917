"""One connection to one guest's agent, from the greeting to its end: the only place that reads what a guest sends.

The other end belongs to the guest. What it may make this process hold or do is bounded by what it was given: credit
for data, one answer for each request, and so many bytes before the answer to the greeting.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import cast

from loguru import logger

from banger.agent.messages import Request
from banger.agent.stream import AgentStream
from banger.agent.wire import (
    MAX_STREAMS,
    NO_NONCE,
    NONCE_BYTES,
    Frame,
    Hello,
    HostDecoder,
    Kind,
    Welcome,
    WireError,
)
from banger.core.errors import BangerError, ErrorKind

#: Data of all streams that may be under way to us: enough for the rate, little enough for an answer behind it.
SESSION_WINDOW = 256 << 10
#: What all streams together may hold of a guest's output; the first ones get the most that is of use.
_BUDGET, _MOST_WINDOW, _LEAST_WINDOW = 2 << 20, 256 << 10, 8 << 10
#: What may come before the answer to a greeting: the rest of a former session, which QEMU and the guest hold.
_MOST_GARBAGE = 8 << 20
#: Data waits while more than the first is still to be sent, until the second is left; both in bytes.
_WRITE_HIGH, _WRITE_LOW = 128 << 10, 32 << 10
#: Requests, credit and signals never wait. With more than this unread no request is added; with twice as much the
#: session is over: it is a guest that sends and does not read, or signals without end.
_MOST_UNREAD = 8 << 20


class AgentSession(asyncio.Protocol):
    """Belongs to the event loop's thread.

    Attributes:
        greeted: the agent's answer to the greeting, or why there is none.
        over: nothing comes after this.
        reason: why it is over.
    """

    def __init__(self, vm_id: str) -> None:
        """Greets as soon as it is connected."""
        self.greeted: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.reason = ""
        self._vm_id = vm_id
        self._decoder = HostDecoder(NO_NONCE)
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, AgentStream] = {}
        self._last_number = 0
        self._tag = 0
        self._most_streams = 0
        self._garbage = 0
        self._credit = SESSION_WINDOW
        self._writable = True

    # -- for whoever has a request ---------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """The agent has answered, and the connection stands."""
        return bool(self._tag) and not self.over.is_set()

    @property
    def is_writable(self) -> bool:
        """The other side takes what is sent."""
        return self._writable and not self.over.is_set()

    @property
    def streams(self) -> int:
        """How many requests are being served."""
        return len(self._streams)

    def greet(self) -> None:
        """Greet, or greet anew if there was no answer: of several greetings, only the last one's answer counts."""
        if self._transport is None or self.greeted.done() or not self._writable:
            return
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._decoder = HostDecoder(nonce)
        self._transport.write(Hello(nonce, SESSION_WINDOW).encode())

    def open(self, request: Request) -> AgentStream:
        """Send a request.

        Raises:
            BangerError: ``exhausted`` if the guest serves as many as it can, or does not read; ``usage`` if the request
                is too large.
        """
        if len(self._streams) >= self._most_streams:
            message = f"the guest serves {self._most_streams} commands and connections already"
            raise BangerError(ErrorKind.EXHAUSTED, message, subject=self._vm_id, hint="wait for one of them to end")
        if self._unread > _MOST_UNREAD:
            message = "the guest does not read what it is sent"
            raise BangerError(ErrorKind.EXHAUSTED, message, subject=self._vm_id, hint=f"banger vm why {self._vm_id}")
        number = self._last_number + 1
        window = self._window()
        try:
            frames = list(request.frames(number, window))
        except ValueError as error:
            hint = "send it on standard input, or copy it with banger vm cp"
            raise BangerError(ErrorKind.USAGE, "the command is too long", cause=str(error), hint=hint) from error
        stream = self._streams[number] = AgentStream(number, window, self)
        self._last_number = number
        for frame in frames:
            self.send(frame)
        return stream

    def send(self, frame: Frame) -> None:
        """Send a frame, unless the session is over."""
        if self._transport is None or not self.is_live:
            return
        self._transport.write(frame.encode(self._tag))
        if self._unread > 2 * _MOST_UNREAD:
            logger.warning("{}: the guest's agent does not read what it is sent", self._vm_id)
            self.end("its agent does not read what it is sent")

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

    def data_received(self, data: bytes) -> None:
        """Take what the agent says; what it must not say ends the session."""
        if self.over.is_set():
            return
        try:
            self._bound_garbage(len(data))
            for frame in self._decoder.feed(data):
                self._note_welcome()
                self._receive(frame)
            self._note_welcome()
        except WireError as error:
            logger.warning("{}: the guest's agent breaks the protocol: {}", self._vm_id, error)
            self.end(f"its agent breaks the protocol: {error}")

    def pause_writing(self) -> None:
        """The other side is behind."""
        self._writable = False

    def resume_writing(self) -> None:
        """The other side has caught up."""
        self._writable = True
        for stream in self._streams.values():
            stream.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """The VMM is gone, or the connection was closed."""
        self._finish(str(exc or "the connection was closed"))

    # -- inside ----------------------------------------------------------------------------------------

    def _bound_garbage(self, size: int) -> None:
        if self._decoder.welcome is None:
            self._garbage += size
            if self._garbage > _MOST_GARBAGE:
                raise WireError("no answer among many bytes")

    def _note_welcome(self) -> None:
        welcome = self._decoder.welcome
        if self._decoder.lost is not None:
            raise WireError("it has begun anew")
        if welcome is None or self.greeted.done():
            return
        if not welcome.tag:
            raise WireError(f"it speaks protocols {welcome.lowest} to {welcome.highest}")
        self._tag, self._most_streams = welcome.tag, min(welcome.most_streams, MAX_STREAMS)
        if welcome.ended_streams:
            logger.info("{}: {} commands of an earlier daemon were ended", self._vm_id, welcome.ended_streams)
        self.greeted.set_result(welcome)

    def _receive(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        if stream is None:
            raise WireError(f"a frame of kind {frame.kind} for stream {frame.stream}, which there is not")
        if frame.kind is Kind.DATA:
            self._count(len(frame.payload))
        stream.receive(frame)
        if frame.kind is Kind.RESULT:
            del self._streams[frame.stream]

    def _count(self, size: int) -> None:
        """Data was received: its part of the session's credit is given back, whether or not somebody reads it."""
        self._credit -= size
        if self._credit < 0:
            raise WireError("more data than there is credit for in the session")
        if self._credit <= SESSION_WINDOW * 3 // 4:
            given = SESSION_WINDOW - self._credit
            self._credit = SESSION_WINDOW
            self.send(Frame(0, Kind.CREDIT, payload=given.to_bytes(4, "little")))

    def _finish(self, reason: str) -> None:
        if self.over.is_set():
            return
        self.over.set()
        self.reason = reason
        hint = f"banger vm why {self._vm_id}"
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
