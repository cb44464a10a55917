"""Where the byte stream to a guest's agent begins on the host, and opening it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

#: How long a machine may take to say whether its guest takes a connection. One that has no driver yet says nothing.
ANSWER_TIMEOUT_S = 5.0
#: ``OK``, a space, and a port of 32 bits.
_LONGEST_ANSWER = 32

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A socket of a VM's machine.

    Attributes:
        path: of the Unix socket.
        vsock_port: the guest's port that a connection is asked for with (Firecracker: docs/vsock.md, "Host-Initiated
            Connections"); 0 if the socket is the stream itself.
    """

    path: Path
    vsock_port: int = 0


async def connect(endpoint: Endpoint, protocol: Callable[[], _Protocol]) -> _Protocol:
    """Open the stream and hand it to a protocol.

    Raises:
        OSError: nobody listens, in the machine or in its guest, or no answer comes.
    """
    loop = asyncio.get_running_loop()
    if not endpoint.vsock_port:
        _, made = await loop.create_unix_connection(protocol, str(endpoint.path))
        return made
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await loop.sock_connect(connection, str(endpoint.path))
            await _ask_for(connection, endpoint.vsock_port)
        _, made = await loop.create_unix_connection(protocol, sock=connection)
    except BaseException:
        connection.close()
        raise
    return made


async def _ask_for(connection: socket.socket, port: int) -> None:
    """The handshake. The answer is read byte by byte: what the guest says may be right behind it."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, b"CONNECT %d\n" % port)
    answer = bytearray()
    while not answer.endswith(b"\n"):
        byte = await loop.sock_recv(connection, 1)
        if not byte:
            raise ConnectionRefusedError("nobody in the guest listens")
        answer += byte
        if len(answer) > _LONGEST_ANSWER:
            raise ConnectionError(f"not an answer: {bytes(answer)!r}")
    if not answer.startswith(b"OK "):
        raise ConnectionError(f"not an answer: {bytes(answer)!r}")
