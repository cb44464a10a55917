"""One address on which queries are accepted, over UDP and TCP."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from banger.core.errors import BangerError, ErrorKind
from banger.dns.limits import ConcurrencyLimit
from banger.dns.model import NameServer

#: Seconds that a connection may be silent.
IDLE_S = 10.0
#: Room for questions that arrive faster than they are read: a thousand.
_BUFFER_BYTES = 1 << 20
#: Pairs of ports that are tried where any will do.
_TRIES = 16
#: ``linux/in6.h``; the socket module does not name it.
_IPV6_FREEBIND = 78

#: ``(question, source address, tcp)`` -> answer.
Answer = Callable[[bytes, str, bool], Awaitable[bytes | None]]
#: ``(family, kind)`` -> a socket of the network where questions are to be taken.
MakeSocket = Callable[[int, int], socket.socket]


class Listener:
    """Takes questions until it is closed. For the thread of its loop.

    Args:
        requests: room for questions; those of datagrams that find none are dropped, and will be asked again.
        connections: room for TCP connections.
    """

    def __init__(self, answer: Answer, requests: ConcurrencyLimit, connections: ConcurrencyLimit) -> None:
        self._answer = answer
        self._requests = requests
        self._connections = connections
        self._tasks: set[asyncio.Task[None]] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def open(self, server: NameServer, make: MakeSocket = socket.socket) -> NameServer:
        """Listen at ``server``; port 0: at any that is free for both. Where it listens.

        ``make`` gives sockets of another network than the host's.

        Raises:
            BangerError: ``conflict`` if somebody else listens there, ``denied``, ``unavailable``.
        """
        try:
            udp, tcp, found = await asyncio.to_thread(_bind, server, make)
        except OSError as error:
            raise _refusal(server, error) from error
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._take_datagram), sock=udp)
        self._udp = transport
        self._tcp = await asyncio.start_server(self._take_connection, sock=tcp)
        return found

    async def close(self) -> None:
        """Stop listening, and leave what is not answered yet unanswered."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports are closed by the next turn of the loop

    def _take_datagram(self, data: bytes, address: Any) -> None:
        if self._requests.enter(address[0]):
            self._keep(asyncio.create_task(self._answer_datagram(data, address)))

    async def _answer_datagram(self, data: bytes, address: Any) -> None:
        try:
            answer = await self._answer(data, address[0], False)  # noqa: FBT003
        finally:
            self._requests.leave(address[0])
        if answer is not None and self._udp is not None:
            self._udp.sendto(answer, address)

    def _take_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if peer is None or not self._connections.enter(peer[0]):
            writer.transport.abort()
            return
        self._keep(asyncio.create_task(self._serve(reader, writer, peer[0])))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str) -> None:
        """Answer one question after the other (RFC 7766)."""
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(size)
                answer = await self._answer_in_turn(data, source)
                if answer is None:
                    return
                async with asyncio.timeout(IDLE_S):
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        except (OSError, EOFError):  # gone, or silent for too long: TimeoutError is an OSError
            return
        finally:
            self._connections.leave(source)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _answer_in_turn(self, data: bytes, source: str) -> bytes | None:
        if not self._requests.enter(source):
            return None
        try:
            return await self._answer(data, source, True)  # noqa: FBT003
        finally:
            self._requests.leave(source)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, Any], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)


def _bind(server: NameServer, make: MakeSocket) -> tuple[socket.socket, socket.socket, NameServer]:
    """A UDP and a listening TCP socket on one port. A port that may be any is tried until it is free for both."""
    for _ in range(_TRIES if server.port == 0 else 0):
        with suppress(OSError):
            return _bind_once(server, make)
    return _bind_once(server, make)


def _bind_once(server: NameServer, make: MakeSocket) -> tuple[socket.socket, socket.socket, NameServer]:
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    tcp = _socket(family, socket.SOCK_STREAM, make)
    try:
        # A former daemon's connections in TIME_WAIT are no obstacle. On UDP this would let two listen at once.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(server)
        found = NameServer(server.address, cast("int", tcp.getsockname()[1]))
        udp = _socket(family, socket.SOCK_DGRAM, make)
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            udp.bind(found)
            tcp.listen(64)
        except OSError:
            udp.close()
            raise
    except OSError:
        tcp.close()
        raise
    return udp, tcp, found


def _socket(family: socket.AddressFamily, kind: socket.SocketKind, make: MakeSocket) -> socket.socket:
    made = make(family, kind)
    made.settimeout(0)
    if family == socket.AF_INET6:
        with suppress(OSError):
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A bridge without ports has no carrier, and its addresses stay tentative until it has.
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    return made


def _refusal(server: NameServer, error: OSError) -> BangerError:
    message, cause = f"cannot answer names at {server}", error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        hint = f"see who listens there: ss -lnptu 'sport = {server.port}'"
        return BangerError(ErrorKind.CONFLICT, message, subject=str(server), cause=cause, hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "ports below 1024 need root or CAP_NET_BIND_SERVICE"
        return BangerError(ErrorKind.DENIED, message, subject=str(server), cause=cause, hint=hint)
    return BangerError(ErrorKind.UNAVAILABLE, message, subject=str(server), cause=cause)
