"""Dialers: how a forwarder connects to the guest's port.

A dialer is told apart from the relaying so that another one (a guest's agent behind a byte stream) is a class here and
nothing elsewhere. Every socket is non-blocking.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Protocol

_IN_PROGRESS = frozenset({0, errno.EINPROGRESS, errno.EAGAIN})
#: First byte of ``struct tcp_info`` (linux/tcp.h): the state; 7 is CLOSE, what a reset leaves.
_TCP_CLOSE = 7


class RefusedError(Exception):
    """Nobody in the guest takes the connection."""


class Dialer(Protocol):
    """How connections and datagrams for one port of the guest get there."""

    def dial(self) -> socket.socket:
        """A stream socket whose connection is begun. Raises :class:`RefusedError` if it is refused at once."""
        ...

    def is_open(self, stream: socket.socket) -> bool:
        """True once bytes may flow; asked whenever the socket is ready. Raises :class:`RefusedError`."""
        ...

    def was_refused(self, stream: socket.socket, sent_bytes: int) -> bool:
        """The guest's stream has ended without a byte: did anybody take the connection?"""
        ...

    def datagrams(self) -> socket.socket:
        """A datagram socket that sends to the port and hears its answers. Raises ``OSError``."""
        ...


class DirectDialer:
    """The host routes to the guest: its kernel answers for itself."""

    def __init__(self, address: str, port: int) -> None:
        self._address = (address, port)

    def dial(self) -> socket.socket:
        """Connect to the guest's port."""
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        stream.settimeout(0)
        error = stream.connect_ex(self._address)
        if error not in _IN_PROGRESS:
            stream.close()
            raise RefusedError
        return stream

    def is_open(self, stream: socket.socket) -> bool:
        """Connected, or refused by the guest or on the way."""
        if stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise RefusedError
        return True

    def was_refused(self, stream: socket.socket, sent_bytes: int) -> bool:  # noqa: ARG002
        """Never: who refuses says so before."""
        return False

    def datagrams(self) -> socket.socket:
        """Connected, so that only the guest's answers are heard."""
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        found.settimeout(0)
        try:
            found.connect(self._address)
        except OSError:
            found.close()
            raise
        return found


class StackDialer(DirectDialer):
    """Through a loopback port that the VMM's user-mode stack listens on and forwards.

    That stack (libslirp) accepts every connection first and asks the guest then; a refusal by the guest it can only
    tell by closing. What gives it away: it reads nothing before the guest has accepted, so closing with bytes unread
    makes the kernel send a reset. A stream that ends in order after bytes were sent was served. One that ends without
    a byte either way is taken for refused.
    """

    def was_refused(self, stream: socket.socket, sent_bytes: int) -> bool:
        """Nothing was read of what was sent, or nothing was sent."""
        if not sent_bytes:
            return True
        return stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def dialer_of(config: dict[str, Any]) -> Dialer:
    """Read what :func:`banger.forwarding.forwarders.Target.config` wrote."""
    kinds = {"direct": DirectDialer, "stack": StackDialer}
    return kinds[config["dialer"]](config["address"], config["port"])
