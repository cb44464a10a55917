"""The forwarder's byte stream to the guest's agent: connected and greeted when somebody dials, and again after a loss.

The other end belongs to the guest. It may send what it was given credit for, and answers; anything else costs it the
session, whose connections are reset. docs/agent.md describes the protocol.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from banger.agent.exchange import Exchange
from banger.agent.messages import Request
from banger.agent.stream_state import StreamState
from banger.agent.wire import MAX_DIALS, Flag, Frame, Kind, WireError
from banger.forwarding.loop import READ, WRITE, Loop

#: Data of all streams that may be under way to us, in bytes.
_SESSION_WINDOW = 512 << 10
#: What a stream's reader may leave unread: at first, and at most for one that reads fast, as long as all together have
#: no more than the last beyond their first.
_FIRST_WINDOW, _MOST_WINDOW, _MOST_EXTRA = 16 << 10, 256 << 10, 4 << 20
#: Nobody's bytes are taken while more than the first is unsent, until the second is left; with more than the third the
#: session is over, as nothing holds back credit.
_WRITE_HIGH, _WRITE_LOW, _MOST_UNREAD = 256 << 10, 64 << 10, 4 << 20
#: What was not answered is looked at so often.
_LOOK_S = 0.5
#: A greeting is said again if it may have been lost: what the guest took in before it knew of our connection is.
_FIRST_REPEAT_S, _LONGEST_REPEAT_S = 0.4, 6.4
#: After the loss of a session, nothing is tried for so long.
_REST_S = 0.5
_READ_BYTES = 128 << 10
#: What the VMM says once it has connected us to a vsock port of the guest (Firecracker: docs/vsock.md).
_MOST_HANDSHAKE = 64


class Dialled(Protocol):
    """Who has a stream, or waits for one."""

    def opened(self, state: StreamState) -> None:
        """The request is on its way, and input may follow it."""
        ...

    def received(self, frame: Frame) -> None:
        """What came for the stream; the state has taken note of it. The last one is a RESULT."""
        ...

    def make_room(self) -> None:
        """The guest takes bytes again."""
        ...

    def lost(self) -> None:
        """There is no stream any more, or there will be none."""
        ...


class PortsLink:
    """Belongs to one loop. Its streams are numbered by the session."""

    def __init__(self, loop: Loop, path: str, vsock_port: int, patience_s: float, tell: Callable[[str], None]) -> None:
        """Connect nothing yet.

        Args:
            loop: calls back.
            path: of the Unix socket that leads to the guest.
            vsock_port: what to ask the VMM for there; 0: nothing, the socket is the guest's port.
            patience_s: how long an agent may take to say whether somebody listens.
            tell: takes what an operator should know.
        """
        self._loop, self._path, self._patience_s, self._tell = loop, path, patience_s, tell
        self._handshake = b"CONNECT %d\n" % vsock_port if vsock_port else b""
        self._connection: socket.socket | None = None
        self._exchange = Exchange(_SESSION_WINDOW)
        self._shaking = False
        self._answer = bytearray()  # to the handshake
        self._unsent = bytearray()
        self._is_writable = True
        self._streams: dict[int, tuple[StreamState, Dialled | None]] = {}  # None: only the result is waited for
        self._waiting: OrderedDict[Dialled, Request] = OrderedDict()
        self._unanswered: OrderedDict[Dialled, float] = OrderedDict()  # since when
        self._looking = False
        self._most_streams = 0
        self._last_number = 0
        self._extra = 0
        self._rested_at = 0.0
        self._said = ""
        self._buffer = bytearray(_READ_BYTES)

    # -- for those who dial ----------------------------------------------------------------------------

    @property
    def is_writable(self) -> bool:
        """The guest keeps pace with what it is sent."""
        return self._is_writable

    def dial(self, request: Request, who: Dialled) -> None:
        """Have a stream for ``who``, as soon as there is a session; or tell it that there is none."""
        self._unanswered[who] = time.monotonic()
        self._waiting[who] = request
        if not self._looking:
            self._looking = True
            self._loop.later(_LOOK_S, self._look)
        self._go_on()

    def send(self, state: StreamState, kind: Kind, payload: bytes = b"", flags: Flag = Flag.NONE) -> None:
        """Send a frame of a stream's; nothing happens once it has ended, or the session is over."""
        if state.result is None and state.number in self._streams:
            self._write(Frame(state.number, kind, flags, payload).encode(self._exchange.tag))

    def took(self, state: StreamState, size: int) -> None:
        """So much of a stream's output has found its reader: the guest may send as much again, a fast reader's more."""
        due = state.take(size)
        if not due:
            return
        extra = min(state.window, _MOST_WINDOW - state.window, _MOST_EXTRA - self._extra)
        if extra > 0:
            self._extra += extra
            state.widen(extra)
            due += extra
        self.send(state, Kind.CREDIT, due.to_bytes(4, "little"))

    def leave(self, who: Dialled, state: StreamState | None) -> None:
        """Nobody is interested in a stream any more; without a state it was not opened. Idempotent."""
        self._waiting.pop(who, None)
        self._unanswered.pop(who, None)
        if state is not None and state.number in self._streams:
            self._streams[state.number] = (state, None)

    # -- having a session ------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Open what waits, or see to it that there is a session."""
        if self._exchange.tag:
            while self._waiting and len(self._streams) < self._most_streams:
                who, request = self._waiting.popitem(last=False)
                self._open(who, request)
        elif self._connection is None and self._waiting:
            rest_s = self._rested_at - time.monotonic()
            if rest_s > 0:
                self._loop.later(rest_s, self._go_on)
            else:
                self._connect()

    def _open(self, who: Dialled, request: Request) -> None:
        self._last_number += 1
        state = StreamState(self._last_number, _FIRST_WINDOW)
        self._streams[state.number] = (state, who)
        for frame in request.frames(state.number, state.window):
            self._write(frame.encode(self._exchange.tag))
        if state.number in self._streams:  # else the session was lost on it
            who.opened(state)

    def _connect(self) -> None:
        try:
            connection = _connected(self._path)
        except OSError as error:
            self._lose(f"there is no way to the guest's agent: {os.strerror(error.errno or errno.EIO)}")
            return
        self._connection = connection
        self._loop.watch(connection.fileno(), READ, self._ready)
        self._shaking = bool(self._handshake)
        if self._shaking:
            self._write(self._handshake)
        else:
            self._greet(_FIRST_REPEAT_S)

    def _greet(self, repeat_s: float) -> None:
        """Say HELLO until it is answered; of several, only the last one's answer counts."""
        if self._connection is None or self._exchange.tag:
            return
        if not self._unsent:
            self._write(self._exchange.greet())
        exchange = self._exchange

        def again() -> None:
            if exchange is self._exchange:
                self._greet(min(2 * repeat_s, _LONGEST_REPEAT_S))

        self._loop.later(repeat_s, again)

    def _lose(self, reason: str) -> None:
        """The session is over, or there is none to be had: everybody is told."""
        if self._connection is not None:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None
        self._report(reason)
        self._exchange = Exchange(_SESSION_WINDOW)
        self._answer.clear()
        self._unsent.clear()
        self._is_writable = True
        self._last_number = self._extra = self._most_streams = 0
        self._rested_at = time.monotonic() + _REST_S
        streams, self._streams = self._streams, {}
        waiting, self._waiting = self._waiting, OrderedDict()
        self._unanswered.clear()
        for who in [who for _, who in streams.values() if who is not None] + list(waiting):
            who.lost()

    def _report(self, words: str) -> None:
        """Say it once, until something else is to be said."""
        if words != self._said:
            self._said = words
            self._tell(words)

    def _look(self) -> None:
        """Give up on what was not answered for long: a guest that stands still, or has no agent."""
        self._looking = bool(self._unanswered)
        if not self._looking:
            return
        self._loop.later(_LOOK_S, self._look)
        latest = time.monotonic() - self._patience_s
        for who in [who for who, since in self._unanswered.items() if since <= latest]:
            self._report(f"the guest's agent has not answered for {self._patience_s:g} s: connections are reset")
            self._unanswered.pop(who, None)
            self._waiting.pop(who, None)
            who.lost()

    # -- bytes -----------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._connection is None:
            return
        if self._unsent:
            self._unsent += data
        elif (sent := self._send(data)) < len(data):
            self._unsent += memoryview(data)[sent:]
            self._loop.watch(self._connection.fileno(), READ | WRITE, self._ready)
        if len(self._unsent) > _WRITE_HIGH:
            self._is_writable = False
        if len(self._unsent) > _MOST_UNREAD:  # not now: who writes is in the middle of something
            exchange = self._exchange
            self._loop.later(0, lambda: self._lose_if(exchange, "the guest's agent does not read what it is sent"))

    def _send(self, data: bytes | bytearray) -> int:
        """What the kernel takes now; an error is found by whoever reads next."""
        assert self._connection is not None
        try:
            return self._connection.send(data)
        except OSError:
            return 0

    def _flush(self) -> None:
        assert self._connection is not None
        del self._unsent[: self._send(self._unsent)]
        if not self._unsent:
            self._loop.watch(self._connection.fileno(), READ, self._ready)
        if not self._is_writable and len(self._unsent) <= _WRITE_LOW:
            self._is_writable = True
            for _, who in list(self._streams.values()):
                if who is not None:
                    who.make_room()

    def _ready(self, events: int) -> None:
        if events & WRITE and self._unsent:
            self._flush()
        if not events & READ or self._connection is None:
            return
        try:
            size = self._connection.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._lose("the connection to the guest's agent was closed")
            return
        data = bytes(memoryview(self._buffer)[:size])
        if data := self._shake(data) if self._shaking else data:
            self._receive(data)

    def _shake(self, data: bytes) -> bytes:
        """Wait for the VMM's word; what comes after it is the agent's."""
        self._answer += data
        line, end, rest = bytes(self._answer).partition(b"\n")
        if not end and len(line) < _MOST_HANDSHAKE:
            return b""
        if not (end and line.startswith(b"OK ")):
            self._lose("the VMM does not connect to the guest's agent")
            return b""
        self._shaking = False
        self._greet(_FIRST_REPEAT_S)
        return rest

    def _receive(self, data: bytes) -> None:
        exchange = self._exchange
        try:
            for frame in exchange.receive(data):
                self._take(frame)
        except WireError as error:
            self._lose_if(exchange, exchange.describe(error))
            return
        if exchange.welcome is not None and not self._most_streams:
            self._most_streams = min(exchange.welcome.most_streams, MAX_DIALS)
            if self._said:
                self._report("the guest's agent answers")
                self._said = ""
            self._go_on()

    def _lose_if(self, exchange: Exchange, reason: str) -> None:
        if exchange is self._exchange:
            self._lose(reason)

    def _take(self, frame: Frame) -> None:
        state, who = self._streams.get(frame.stream, (None, None))
        if state is None:
            raise WireError(f"a frame of kind {frame.kind} for stream {frame.stream}, which there is not")
        state.receive(frame)
        if credit := self._exchange.credit_due():
            self._write(credit.encode(self._exchange.tag))
        if state.result is not None:
            del self._streams[state.number]
            self._extra -= state.window - _FIRST_WINDOW
        if who is not None:
            self._unanswered.pop(who, None)
            who.received(frame)
        if state.result is not None and self._waiting:
            self._go_on()


def _connected(path: str) -> socket.socket:
    """Connects at once, or not at all. Raises ``OSError``."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(0)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection
