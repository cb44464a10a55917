"""The client's side of a frame stream, both directions at once, as used by ``run``, ``exec`` and ``cp``.

The socket never blocks: whatever cannot be sent yet is kept, so one thread can serve the daemon, standard input and
a terminal from one ``poll`` (:mod:`banger.commands.relay`). The blocking calls at the end are for plainer callers.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from banger.client.connection import error_of, lost_connection
from banger.client.http1 import ProtocolError, ResponseParser, encode_chunk, encode_head
from banger.core.errors import BangerError
from banger.core.frames import MAX_PAYLOAD, MEDIA_TYPE, STDIN_WINDOW, FrameReader, FrameType, encode, encode_json

#: More than this waiting to be sent, and a caller had better stop producing.
HIGH_WATER = 256 * 1024
_RECEIVE_BYTES = 256 * 1024

Frame = tuple[FrameType, bytes]


class ClientFrameChannel:
    """A POST whose request and response bodies are frames. Closing it is hanging up."""

    def __init__(self, sock: socket.socket, target: str, config: Mapping[str, Any]) -> None:
        """Take over a connected socket and queue the request's head and its CONFIG frame."""
        sock.settimeout(0)
        self._sock = sock
        self._parser = ResponseParser()
        self._reader = FrameReader()
        self._refusal = bytearray()
        self._frames: deque[Frame] = deque()
        self._ended = False
        self._unacknowledged = 0
        headers = {"Connection": "close", "Content-Type": MEDIA_TYPE, "Transfer-Encoding": "chunked"}
        self._outgoing = bytearray(encode_head("POST", target, headers))
        self._outgoing += encode_chunk(encode_json(FrameType.CONFIG, config))

    # -- for a caller with a poll loop of its own ------------------------------------------------------

    def fileno(self) -> int:
        """The socket, for ``poll``."""
        return self._sock.fileno()

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent; poll for writing while there are any."""
        return len(self._outgoing)

    @property
    def takes_stdin(self) -> bool:
        """Standard input may be put: neither the socket nor the command in the guest is behind with it."""
        return len(self._outgoing) < HIGH_WATER and self._unacknowledged < STDIN_WINDOW

    @property
    def ended(self) -> bool:
        """The response is complete: nothing will arrive any more."""
        return self._ended

    def put(self, kind: FrameType, payload: bytes = b"") -> None:
        """Queue a frame; a payload too long for one becomes several."""
        if kind is FrameType.STDIN:
            self._unacknowledged += len(payload)
        for start in range(0, max(1, len(payload)), MAX_PAYLOAD):
            self._outgoing += encode_chunk(encode(kind, payload[start : start + MAX_PAYLOAD]))

    def put_json(self, kind: FrameType, value: Any) -> None:
        """Queue a frame with a JSON payload."""
        self._outgoing += encode_chunk(encode_json(kind, value))

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._outgoing:
                sent = self._sock.send(memoryview(self._outgoing)[:_RECEIVE_BYTES])
                del self._outgoing[:sent]
        except BlockingIOError:
            return
        except OSError:
            # The daemon stopped reading: it has answered, or it died. Reading tells which.
            self._outgoing.clear()

    def take(self) -> list[Frame]:
        """The frames that have arrived. Raises what the daemon refused the request with."""
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise lost_connection(error, "POST") from error
        try:
            if not data:
                self._parser.end_of_stream()
            body = self._parser.feed(data)
        except ProtocolError as error:
            raise lost_connection(error, "POST") from error
        self._ended = self._parser.complete
        if self._parser.status not in (0, 200):
            self._refusal += body
            if self._ended:
                raise error_of(self._parser.status, bytes(self._refusal))
            return []
        return [frame for frame in self._reader.feed(body) if not self._is_acknowledgement(frame)]

    def _is_acknowledgement(self, frame: Frame) -> bool:
        kind, payload = frame
        if kind is not FrameType.ACK:
            return False
        self._unacknowledged -= int(json.loads(payload))
        return True

    # -- for a caller that just waits ------------------------------------------------------------------

    def send_stdin(self, payload: bytes | memoryview, timeout_s: float | None = None) -> bool:
        """Send standard input, waiting for room whenever the command does not keep up.

        False once the daemon has ended the exchange (read why with `receive`), or if there was no room within
        ``timeout_s``.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        pieces = memoryview(payload)
        for start in range(0, len(pieces), MAX_PAYLOAD):
            self.put(FrameType.STDIN, bytes(pieces[start : start + MAX_PAYLOAD]))
            while not self._has_exit() and not self.takes_stdin:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._wait(left)
            if self._has_exit():
                return False
        return not self._has_exit()

    def receive(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame; ``None`` if there was none in time, or none will come (see :attr:`ended`)."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._frames and not self._ended:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._wait(left)
        return self._frames.popleft() if self._frames else None

    def _has_exit(self) -> bool:
        return self._ended or any(kind is FrameType.EXIT for kind, _ in self._frames)

    def _wait(self, timeout_s: float | None) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        for _, ready in poll.poll(None if timeout_s is None else max(1, int(timeout_s * 1000))):
            if ready & select.POLLOUT:
                self.flush()
            if ready & ~select.POLLOUT:
                self._frames.extend(self.take())

    def close(self) -> None:
        """Hang up, or just let go of an exchange that has ended."""
        self._sock.close()


def exit_of(payload: bytes) -> dict[str, Any]:
    """The payload of an EXIT frame: ``{"code", "signal"}``. Raises the error that it carries instead."""
    outcome: dict[str, Any] = json.loads(payload)
    if "error" in outcome:
        raise BangerError.from_dict(outcome["error"])
    return outcome
