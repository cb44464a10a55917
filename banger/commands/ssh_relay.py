"""Bytes of an ssh client, between its socket and a frame stream. Bounded: nothing is read that cannot be passed on."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from contextlib import suppress

from banger.client.channel import HIGH_WATER, ClientFrameChannel, Frame
from banger.core.errors import BangerError
from banger.core.frames import FrameType

_READ_BYTES = 64 * 1024
_BROKEN = select.POLLERR | select.POLLNVAL


def relay(channel: ClientFrameChannel, client: socket.socket) -> None:
    """Carry both ways until the guest's side has ended and all of it is passed on, or the client is gone."""
    client.setblocking(False)
    pending = bytearray()
    input_open, output_open = True, _pass_on(iter(lambda: channel.receive(0), None), pending)  # what came already
    while output_open or pending:
        poll = select.poll()
        wants = (select.POLLIN if len(pending) < HIGH_WATER else 0) | (select.POLLOUT if channel.unsent else 0)
        if output_open and wants:  # else its end would be reported again and again
            poll.register(channel.fileno(), wants)
        reads = select.POLLIN if input_open and channel.takes_stdin else 0
        poll.register(client.fileno(), reads | (select.POLLOUT if pending else 0))
        ready = dict(poll.poll())
        try:
            if ready.get(channel.fileno(), 0) & select.POLLOUT:
                channel.flush()
            if wants & select.POLLIN and ready.get(channel.fileno(), 0) & ~select.POLLOUT:
                output_open = _take(channel, pending)
            happened = ready.get(client.fileno(), 0)
            if reads and happened & (select.POLLIN | select.POLLHUP):
                input_open = _read(channel, client)
            if happened & _BROKEN or (happened & select.POLLHUP and not (reads and input_open)):
                channel.flush()  # what was said last
                return
            if pending and happened:
                del pending[: client.send(pending)]
        except BlockingIOError:
            continue
        except (OSError, BangerError):  # one of the two is gone: the other one is told by the closing
            return
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def _take(channel: ClientFrameChannel, pending: bytearray) -> bool:
    """Take what has come from the guest; False once that was all."""
    frames = channel.take()
    return _pass_on(frames, pending) and not channel.ended


def _pass_on(frames: Iterable[Frame], pending: bytearray) -> bool:
    for kind, payload in frames:
        if kind is FrameType.STDOUT:
            pending += payload
        elif kind is FrameType.EXIT:
            return False
    return True


def _read(channel: ClientFrameChannel, client: socket.socket) -> bool:
    """Pass on what the client says; False once it has ended its side."""
    data = client.recv(_READ_BYTES)
    if data:
        channel.put(FrameType.STDIN, data)
    else:
        channel.put(FrameType.STDIN_EOF)
    return bool(data)
