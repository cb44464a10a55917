"""UDP: datagrams to a published port, and answers back to their senders.

Each sender has a socket of its own towards the guest, so that answers find their way. Senders that have been silent for
a while are forgotten, the most silent first if there are too many. Where the host cannot take a datagram at once it is
dropped, as the network would.
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from contextlib import suppress

from banger.forwarding.dialers import Dialer
from banger.forwarding.loop import READ, Loop

#: As long as the kernel's connection tracking keeps a stream of datagrams.
SILENT_S = 120.0
MOST_SENDERS = 512
_MOST_BYTES = 65536
#: So many datagrams in a row from one socket before the others have their turn.
_BURST = 32
#: linux/in.h, linux/in6.h: which of the host's addresses a datagram was sent to, and is answered from.
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50

Control = list[tuple[int, int, bytes]]


class Senders:
    """All UDP ports of one forwarder."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._known: OrderedDict[tuple[int, object], Sender] = OrderedDict()
        loop.later(SILENT_S / 4, self._sweep)

    def add(self, port: socket.socket, dialer: Dialer) -> None:
        """Take datagrams from a bound socket."""
        port.settimeout(0)
        if port.family == socket.AF_INET6:
            port.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            port.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._loop.watch(port.fileno(), READ, lambda _: self._take(port, dialer))

    def _take(self, port: socket.socket, dialer: Dialer) -> None:
        for _ in range(_BURST):
            try:
                data, control, _, address = port.recvmsg(_MOST_BYTES, 256)
            except OSError:  # nothing there, or the kernel tells of an answer that found nobody
                return
            key = (port.fileno(), address)
            sender = self._known.get(key)
            if sender is None:
                try:
                    sender = Sender(self._loop, port, address, answers_from(control), dialer.datagrams())
                except OSError:
                    return
                self._known[key] = sender
                if len(self._known) > MOST_SENDERS:
                    self._known.popitem(last=False)[1].close()
            self._known.move_to_end(key)
            sender.send(data)

    def _sweep(self) -> None:
        oldest = time.monotonic() - SILENT_S
        for key in [key for key, sender in self._known.items() if sender.used_at < oldest]:
            self._known.pop(key).close()
        self._loop.later(SILENT_S / 4, self._sweep)


class Sender:
    """One sender's way to the guest and back."""

    def __init__(
        self, loop: Loop, port: socket.socket, address: object, control: Control, guest: socket.socket
    ) -> None:
        self._loop, self._port, self._address, self._control, self._guest = loop, port, address, control, guest
        self.used_at = time.monotonic()
        loop.watch(guest.fileno(), READ, lambda _: self._answer())

    def send(self, data: bytes) -> None:
        """To the guest."""
        self.used_at = time.monotonic()
        with suppress(OSError):
            self._guest.send(data)

    def close(self) -> None:
        """Forget it."""
        self._loop.forget(self._guest.fileno())
        self._guest.close()

    def _answer(self) -> None:
        for _ in range(_BURST):
            try:
                data = self._guest.recv(_MOST_BYTES)
            except OSError:  # nothing there, or nobody listens in there (yet)
                return
            self.used_at = time.monotonic()
            with suppress(OSError):
                self._port.sendmsg([data], self._control, 0, self._address)  # type: ignore[arg-type]


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
