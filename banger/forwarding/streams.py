"""TCP: connections to a published port, each relayed with its half-closes and back-pressure.

Memory is bounded: a direction holds at most one chunk, and reads nothing more until that is taken; so many connections
are carried at a time, and the kernel's queue holds the next.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress

from banger.forwarding.dialers import Dialer, RefusedError
from banger.forwarding.loop import READ, WRITE, Loop

CHUNK_BYTES = 64 * 1024
MOST_CONNECTIONS = 1024
#: The kernel's queue of those that wait to be accepted (it has a limit of its own, net.core.somaxconn).
BACKLOG = 1024
#: After a lack of descriptors or memory, nobody is accepted for so long.
_REST_S = 0.5
_RESET = struct.pack("ii", 1, 0)

#: What every direction reads into; what could not be sent at once is copied out of it.
_buffer = bytearray(CHUNK_BYTES)
_view = memoryview(_buffer)


class Listeners:
    """All TCP ports of one forwarder, and the connections to them."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ports: dict[int, tuple[socket.socket, Dialer]] = {}
        self._open = 0
        self._resting = False

    def add(self, listener: socket.socket, dialer: Dialer) -> None:
        """Accept from a socket that listens already."""
        listener.settimeout(0)
        listener.listen(BACKLOG)
        self._ports[listener.fileno()] = (listener, dialer)
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
        listener, dialer = self._ports[descriptor]
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
        _keep_alive(client)
        try:
            guest = dialer.dial()
        except (RefusedError, OSError):
            reset(client)
            return
        self._open += 1
        Connection(self._loop, self, dialer, client, guest)


class Direction:
    """Bytes from one socket to another."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.rest = b""
        self.carried_bytes = 0
        self.ended = False  # the source said that nothing more comes
        self.done = False  # and the sink was told

    @property
    def reads(self) -> bool:
        """It wants something from its source."""
        return not self.rest and not self.ended

    def carry(self) -> None:
        """Move one chunk. Raises ``OSError`` if one of the two is gone."""
        if self.reads:
            try:
                count = self.source.recv_into(_buffer)
            except BlockingIOError:
                return
            self.ended = count == 0
            if count:
                self._send(_view[:count])
        elif self.rest:
            self._send(memoryview(self.rest))

    def pass_end(self) -> None:
        """Tell the sink that nothing more comes, once everything has come."""
        if self.ended and not self.rest and not self.done:
            self.done = True
            with suppress(OSError):  # it has ended its own side and is gone
                self.sink.shutdown(socket.SHUT_WR)

    def _send(self, data: memoryview) -> None:
        try:
            sent = self.sink.send(data)
        except BlockingIOError:
            sent = 0
        self.carried_bytes += sent
        self.rest = bytes(data[sent:])


class Connection:
    """A client and the guest's side of it."""

    def __init__(
        self, loop: Loop, listeners: Listeners, dialer: Dialer, client: socket.socket, guest: socket.socket
    ) -> None:
        self._loop, self._listeners, self._dialer = loop, listeners, dialer
        self._client, self._guest = client, guest
        self._inward, self._outward = Direction(client, guest), Direction(guest, client)
        self._is_open = False
        for one in (client, guest):
            with suppress(OSError):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.watch(client.fileno(), 0, self._client_ready)  # only that it has gone, until the guest is reached
        self._loop.watch(guest.fileno(), WRITE, self._guest_ready)

    def _client_ready(self, events: int) -> None:
        if not self._is_open:
            self._end(by_reset=True)
            return
        self._ready(self._inward, self._outward, events)

    def _guest_ready(self, events: int) -> None:
        if not self._is_open:
            try:
                self._is_open = self._dialer.is_open(self._guest)
            except (RefusedError, OSError):
                self._end(by_reset=True)
                return
            self._update()
            return
        self._ready(self._outward, self._inward, events)

    def _ready(self, reading: Direction, writing: Direction, events: int) -> None:
        """One of the two sockets can be read (it is ``reading``'s source) or written (``writing``'s sink)."""
        is_idle = not (reading.reads or writing.rest)
        try:
            if events & READ and reading.reads:
                reading.carry()
                if reading is self._outward and reading.ended and self._was_refused():
                    self._end(by_reset=True)
                    return
            if events & WRITE and writing.rest:
                writing.carry()
            reading.pass_end()
            writing.pass_end()
        except OSError:  # reset by one side: the other one is told the same
            self._end(by_reset=True)
            return
        if self._inward.done and self._outward.done:
            self._end(by_reset=False)
        elif is_idle:  # nothing was waited for, so this is an error: reset, or no longer there
            self._end(by_reset=True)
        else:
            self._update()

    def _was_refused(self) -> bool:
        if self._outward.carried_bytes:
            return False
        return self._dialer.was_refused(self._guest, self._inward.carried_bytes)

    def _update(self) -> None:
        """Wait for what each direction needs next.

        A socket that nothing is waited for is watched for errors alone. If its own other half was ended from here, not
        even that: it would be reported forever once it ends, while what came from it still waits for its sink.
        """
        inward, outward = self._inward, self._outward
        client = (READ if inward.reads else 0) | (WRITE if outward.rest else 0)
        guest = (READ if outward.reads else 0) | (WRITE if inward.rest else 0)
        for one, interest, ready, is_shut in (
            (self._client, client, self._client_ready, outward.done),
            (self._guest, guest, self._guest_ready, inward.done),
        ):
            if interest or not is_shut:
                self._loop.watch(one.fileno(), interest, ready)
            else:
                self._loop.forget(one.fileno())

    def _end(self, *, by_reset: bool) -> None:
        for one in (self._client, self._guest):
            self._loop.forget(one.fileno())
            if by_reset:
                reset(one)
            else:
                one.close()
        self._listeners.closed()


def _keep_alive(stream: socket.socket) -> None:
    """Find out within minutes that a client is gone for good, also one that had ended its own side first."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in ((socket.TCP_KEEPIDLE, 120), (socket.TCP_KEEPINTVL, 30)):
        stream.setsockopt(socket.IPPROTO_TCP, option, seconds)


def reset(stream: socket.socket) -> None:
    """Close it so that the other end sees a reset, not an end in order."""
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.close()
