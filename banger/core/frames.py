"""The frame stream of ``run``, ``exec`` and ``cp``: what travels in both directions of one HTTP exchange.

A frame is one type byte, a 4-byte big-endian payload length, and the payload (at most 1 MiB). The request
body carries frames towards the guest while the response body carries frames from it; closing the
connection is the caller hanging up.

Standard input has a window, so that a command that reads none of it holds up neither a signal behind it nor the
news that the caller is gone: at most ``STDIN_WINDOW`` bytes may be under way, and ACK frames tell what was taken.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from banger.core.errors import BangerError, ErrorKind

MEDIA_TYPE = "application/vnd.banger.frames"
MAX_PAYLOAD = 1 << 20
#: Bytes of standard input that may be sent and not yet acknowledged.
STDIN_WINDOW = 1 << 20
_HEADER = struct.Struct(">BI")


class FrameType(IntEnum):
    """Lower-case letters, as bytes on the wire. Requests: CONFIG first, then the rest. Responses: EXIT last."""

    CONFIG = ord("c")  #: JSON: what to do
    STDIN = ord("i")  #: bytes for standard input
    STDIN_EOF = ord("e")  #: standard input has ended; no payload
    SIGNAL = ord("s")  #: signal name without SIG: ``INT``
    RESIZE = ord("w")  #: JSON: ``{"rows", "columns"}``
    EVENT = ord("v")  #: JSON: an operation event
    STARTED = ord("b")  #: JSON: the command runs; ``{"vm_id", "vm_name"}``
    ACK = ord("a")  #: JSON: how many bytes of STDIN payloads were taken since the last one
    STDOUT = ord("o")  #: bytes
    STDERR = ord("r")  #: bytes
    EXIT = ord("x")  #: JSON: ``{"code", "signal"}`` of the guest's command, or ``{"error": {…}}``


def encode(kind: FrameType, payload: bytes | memoryview = b"") -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(kind, len(payload)) + bytes(payload)


def encode_json(kind: FrameType, value: Any) -> bytes:
    """One frame with a JSON payload."""
    return encode(kind, json.dumps(value, separators=(",", ":")).encode())


class FrameReader:
    """Cuts a byte stream into frames; feed it chunks of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[FrameType, bytes]]:
        """Yield every frame that is complete now. Raises ``usage`` for what is not a frame."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise BangerError(ErrorKind.USAGE, f"a frame of {length} bytes is too long")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            try:
                frame_type = FrameType(kind)
            except ValueError:
                raise BangerError(ErrorKind.USAGE, f"unknown frame type {kind}") from None
            yield frame_type, payload
