"""TCP: connections to a published port, each relayed through the guest's agent with its half-closes and back-pressure.

Memory is bounded: the guest sends a connection no more than its window, from a client no more is taken than the guest
has given credit for, and so many connections are carried at a time; the kernel's queue holds the next.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress

from banger.agent.messages import Request, Status
from banger.agent.stream_state import StreamState
from banger.agent.wire import MAX_PAYLOAD, Flag, Frame, Kind
from banger.forwarding.link import PortsLink
from banger.forwarding.loop import READ, WRITE, Loop

MOST_CONNECTIONS = 1024
#: As in ``host_ports``, which this process does without.
BACKLOG = 1024
#: After a lack of descriptors or memory, nobody is accepted for so long.
_REST_S = 0.5
_RESET = struct.pack("ii", 1, 0)


class Listeners:
    """All TCP ports of one forwarder, and the connections to them."""

    def __init__(self, loop: Loop, link: PortsLink) -> None:
        self._loop, self._link = loop, link
        self._ports: dict[int, tuple[socket.socket, Request]] = {}
        self._open = 0
        self._resting = False

    def add(self, listener: socket.socket, request: Request) -> None:
        """Accept from a socket that listens already; each connection is what ``request`` dials."""
        listener.settimeout(0)
        listener.listen(BACKLOG)
        self._ports[listener.fileno()] = (listener, request)
        self._watch(listener.fileno())

    def closed(self) -> None:
        """One connection less."""
        self._open -= 1
        if self._resting and self._open == MOST_CONNECTIONS - 1:
            self._wake()

    def _watch(self, descriptor: int) -> None:
        self._loop.watch(descriptor, READ, lambda _: self._accept(descriptor))

    def _rest(self) -> None:
        self._resting = True
        for descriptor in self._ports:
            self._loop.forget(descriptor)

    def _wake(self) -> None:
        if self._resting and self._open < MOST_CONNECTIONS:
            self._resting = False
            for descriptor in self._ports:
                self._watch(descriptor)

    def _accept(self, descriptor: int) -> None:
        listener, request = self._ports[descriptor]
        if self._open >= MOST_CONNECTIONS:
            self._rest()
            return
        try:
            client, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._rest()
                self._loop.later(_REST_S, self._wake)
            return  # else the client has left already
        client.settimeout(0)
        _prepare(client)
        self._open += 1
        self._link.dial(request, Connection(self._loop, self._link, self, client))


class Connection:
    """A client and the guest's side of it. Implements :class:`banger.forwarding.link.Dialled`."""

    def __init__(self, loop: Loop, link: PortsLink, listeners: Listeners, client: socket.socket) -> None:
        self._loop, self._link, self._listeners, self._client = loop, link, listeners, client
        self._state: StreamState | None = None
        self._rest = bytearray()  # what the guest said and the client has not taken
        self._client_ended = False  # it said that nothing more comes, and the guest was told
        self._guest_ended = False  # the same, the other way round
        self._is_over = False
        self._interest = 0
        self._loop.watch(client.fileno(), 0, self._ready)  # only that it has gone, until the guest is asked

    # -- from the guest --------------------------------------------------------------------------------

    def opened(self, state: StreamState) -> None:
        """What the client says may go to the guest at once."""
        self._state = state
        self._update()

    def received(self, frame: Frame) -> None:
        """Pass bytes and ends on."""
        assert self._state is not None
        if self._is_over:
            return
        if frame.kind is Kind.DATA and frame.payload:
            self._pass_on(frame.payload)
        result = self._state.result
        if result is not None and result.status != Status.OK:  # refused, or reset
            self._end(by_reset=True)
        else:
            self._settle()

    def make_room(self) -> None:
        """The client is listened to again."""
        self._update()

    def lost(self) -> None:
        """Nobody knows what the guest would have said."""
        self._end(by_reset=True)

    def _pass_on(self, data: bytes) -> None:
        assert self._state is not None
        if not self._rest:
            sent = self._send(data)
            if sent == len(data) or self._is_over:
                return
            data = data[sent:]
        self._rest += data

    def _send(self, data: bytes | bytearray) -> int:
        """What the client takes now; one that is gone takes everything, and it is over."""
        assert self._state is not None
        try:
            sent = self._client.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._end(by_reset=True)
            return len(data)
        self._link.took(self._state, sent)
        return sent

    # -- from the client -------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if not self._interest:  # nothing was waited for, so this is an error: reset, or no longer there
            self._end(by_reset=True)
            return
        if events & WRITE and self._rest:
            del self._rest[: self._send(self._rest)]
        if events & READ and self._reads and not self._is_over:
            self._carry()
        self._settle()

    @property
    def _reads(self) -> bool:
        """It is of use to hear what the client says."""
        state = self._state
        if state is None or self._client_ended or state.was_stopped:
            return False
        return state.input_credit > 0 and self._link.is_writable

    def _carry(self) -> None:
        """Send the guest what the client has to say."""
        state = self._state
        assert state is not None
        try:
            data = self._client.recv(min(state.input_credit, MAX_PAYLOAD))
        except BlockingIOError:
            return
        except OSError:
            self._end(by_reset=True)
            return
        self._client_ended = not data
        state.send(len(data))
        self._link.send(state, Kind.DATA, data, Flag.NONE if data else Flag.END)

    # -- both ------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Pass the guest's end on once everything has come; be done once both sides are."""
        state = self._state
        if self._is_over or state is None:
            return
        if (state.output_ended or state.result is not None) and not self._rest and not self._guest_ended:
            self._guest_ended = True
            with suppress(OSError):  # it has ended its own side and is gone
                self._client.shutdown(socket.SHUT_WR)
        if self._guest_ended and (self._client_ended or state.result is not None):
            self._end(by_reset=False)
        else:
            self._update()

    def _update(self) -> None:
        """Wait for what is needed next.

        A client that nothing is waited for is watched for errors alone. If it was told that nothing more comes, not
        even that: it would be reported forever once it ends, while what came from it still waits for the guest.
        """
        if self._is_over:
            return
        self._interest = (READ if self._reads else 0) | (WRITE if self._rest else 0)
        if self._interest or not self._guest_ended:
            self._loop.watch(self._client.fileno(), self._interest, self._ready)
        else:
            self._loop.forget(self._client.fileno())

    def _end(self, *, by_reset: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        if by_reset and self._state is not None:
            self._link.send(self._state, Kind.CANCEL)
        self._link.leave(self, self._state)
        self._loop.forget(self._client.fileno())
        if by_reset:
            _reset(self._client)
        else:
            self._client.close()
        self._listeners.closed()


def _prepare(client: socket.socket) -> None:
    """Small answers leave at once; a client that is gone for good is found out within minutes, at any time."""
    with suppress(OSError):  # it is gone already
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in ((socket.TCP_KEEPIDLE, 120), (socket.TCP_KEEPINTVL, 30)):
            client.setsockopt(socket.IPPROTO_TCP, option, seconds)


def _reset(client: socket.socket) -> None:
    """Close it so that the other end sees a reset, not an end in order."""
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()
