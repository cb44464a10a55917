"""UDP: datagrams to a published port, and answers back to their senders.

Each sender has a stream of its own to the guest's agent, and there a socket, so that answers find their way. Senders
that have been silent for a while are forgotten, the most silent first if there are too many. Where a datagram cannot be
taken on at once it is dropped, as the network would.
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from banger.agent.datagrams import DatagramReader, datagram
from banger.agent.messages import Request
from banger.agent.stream_state import StreamState
from banger.agent.wire import MAX_PAYLOAD, Frame, Kind
from banger.forwarding.link import PortsLink
from banger.forwarding.loop import READ, Loop

#: As long as the kernel's connection tracking keeps a stream of datagrams.
SILENT_S = 120.0
MOST_SENDERS = 512
_MOST_BYTES = 65536
#: So many datagrams in a row from one socket before the others have their turn.
_BURST = 32
#: So many of a sender's wait for a session with the guest.
_MOST_EARLY = 4
#: linux/in.h, linux/in6.h: which of the host's addresses a datagram was sent to, and is answered from.
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50

Control = list[tuple[int, int, bytes]]


class Senders:
    """All UDP ports of one forwarder."""

    def __init__(self, loop: Loop, link: PortsLink) -> None:
        self._loop, self._link = loop, link
        self._known: OrderedDict[tuple[int, object], Sender] = OrderedDict()
        loop.later(SILENT_S / 4, self._sweep)

    def add(self, port: socket.socket, request: Request) -> None:
        """Take datagrams from a bound socket; for each sender, ``request`` is dialled."""
        port.settimeout(0)
        if port.family == socket.AF_INET6:
            port.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            port.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._loop.watch(port.fileno(), READ, lambda _: self._take(port, request))

    def _take(self, port: socket.socket, request: Request) -> None:
        for _ in range(_BURST):
            try:
                data, control, _, address = port.recvmsg(_MOST_BYTES, 256)
            except OSError:  # nothing there, or the kernel tells of an answer that found nobody
                return
            key = (port.fileno(), address)
            sender = self._known.get(key)
            if sender is None:
                sender = self._add(key, port, answers_from(control))
                sender.send(data)
                self._link.dial(request, sender)
            else:
                self._known.move_to_end(key)
                sender.send(data)

    def _add(self, key: tuple[int, object], port: socket.socket, control: Control) -> Sender:
        if len(self._known) == MOST_SENDERS:
            self._known.popitem(last=False)[1].close()
        sender = Sender(self._link, port, key[1], control, lambda: self._known.pop(key, None))
        self._known[key] = sender
        return sender

    def _sweep(self) -> None:
        oldest = time.monotonic() - SILENT_S
        for key in [key for key, sender in self._known.items() if sender.used_at < oldest]:
            self._known.pop(key).close()
        self._loop.later(SILENT_S / 4, self._sweep)


class Sender:
    """One sender's way to the guest and back. Implements :class:`banger.forwarding.link.Dialled`."""

    def __init__(
        self, link: PortsLink, port: socket.socket, address: object, control: Control, forget: Callable[[], object]
    ) -> None:
        """``forget`` is called when the guest's side is gone; the next datagram is a new sender's."""
        self._link, self._port, self._address, self._control, self._forget = link, port, address, control, forget
        self._state: StreamState | None = None
        self._early: list[bytes] = []
        self._reader = DatagramReader()
        self.used_at = time.monotonic()

    def send(self, data: bytes) -> None:
        """To the guest."""
        self.used_at = time.monotonic()
        if self._state is not None:
            self._send(self._state, datagram(data))
        elif len(self._early) < _MOST_EARLY:
            self._early.append(datagram(data))

    def close(self) -> None:
        """The sender is forgotten."""
        if self._state is not None:
            self._link.send(self._state, Kind.CANCEL)
        self._link.leave(self, self._state)

    def opened(self, state: StreamState) -> None:
        """What was sent early is on its way."""
        self._state = state
        for data in self._early:
            self._send(state, data)
        self._early.clear()

    def received(self, frame: Frame) -> None:
        """Answer the sender."""
        assert self._state is not None
        if frame.kind is Kind.DATA:
            self._link.took(self._state, len(frame.payload))
            self.used_at = time.monotonic()
            for data in self._reader.feed(frame.payload):
                with suppress(OSError):
                    self._port.sendmsg([data], self._control, 0, self._address)  # type: ignore[arg-type]
        if self._state.result is not None:
            self._forget()

    def make_room(self) -> None:
        """Nothing waits."""

    def lost(self) -> None:
        """Datagrams are lost, that is what they are for."""
        self.close()
        self._forget()

    def _send(self, state: StreamState, data: bytes) -> None:
        if len(data) > state.input_credit or not self._link.is_writable:
            return
        for start in range(0, len(data), MAX_PAYLOAD):
            piece = data[start : start + MAX_PAYLOAD]
            state.send(len(piece))
            self._link.send(state, Kind.DATA, piece)


def answers_from(control: Control) -> Control:
    """What makes an answer leave from the address that the question was sent to. Pure.

    ``struct in_pktinfo`` (ip(7)) has the address of the question third and that of the answer second; the interface
    is left to the routes, as for any other answer.
    """
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return [(level, kind, bytes(4) + data[8:12] + bytes(4))]
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            return [(level, kind, data[:16] + (data[16:20] if data[:2] == b"\xfe\x80" else bytes(4)))]
    return []
