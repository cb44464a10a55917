"""Datagrams on a stream that was dialled for such: each with its length before it. Pure; see docs/agent.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_U16 = struct.Struct("<H")


def datagram(data: bytes) -> bytes:
    """A datagram on a stream of such. Raises ``struct.error`` for one that cannot be."""
    return _U16.pack(len(data)) + data


class DatagramReader:
    """Cuts a stream into datagrams; feed it chunks of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield those that are complete now; less than one is held."""
        self._buffer += data
        while len(self._buffer) >= _U16.size:
            end = _U16.size + _U16.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            found = bytes(self._buffer[_U16.size : end])
            del self._buffer[:end]
            yield found
