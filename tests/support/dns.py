"""A name server whose answers a test decides, and a world in which a test decides who is who."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rrset

from banger.dns.model import Guest, NameServer, World
from banger.dns.patterns import NamePatterns

Respond = Callable[[dns.message.Message, bool], Sequence[bytes]]


def records(*lines: str) -> list[dns.rrset.RRset]:
    """Record sets from ``NAME TTL TYPE DATA`` lines, one each."""
    fields = (line.split(maxsplit=3) for line in lines)
    return [dns.rrset.from_text(name, int(ttl), "IN", rdtype, data) for name, ttl, rdtype, data in fields]


def answer_with(*lines: str) -> Respond:
    """Answer everything with these records."""

    def respond(query: dns.message.Message, _tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query)
        response.answer = records(*lines)
        return [response.to_wire()]

    return respond


@dataclass
class FakeNameServer:
    """Listens at :attr:`server` over UDP and TCP until it is closed. Start it by :func:`name_server`."""

    respond: Respond
    server: NameServer
    asked: list[tuple[dns.message.Message, str, int]] = field(default_factory=list)  #: message, "udp" or "tcp", port

    def run(self, udp: socket.socket, tcp: socket.socket) -> list[threading.Thread]:
        threads = [
            threading.Thread(target=self._serve_udp, args=(udp,)),
            threading.Thread(target=self._serve_tcp, args=(tcp,)),
        ]
        for thread in threads:
            thread.start()
        return threads

    def _serve_udp(self, udp: socket.socket) -> None:
        while True:
            data, address = udp.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            self.asked.append((query, "udp", address[1]))
            for wire in self.respond(query, False):
                udp.sendto(wire, address)

    def _serve_tcp(self, tcp: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, address = tcp.accept()
                with connection, suppress(EOFError):
                    connection.settimeout(5)
                    size = int.from_bytes(_exactly(connection, 2), "big")
                    query = dns.message.from_wire(_exactly(connection, size))
                    self.asked.append((query, "tcp", address[1]))
                    for wire in self.respond(query, True):
                        connection.sendall(len(wire).to_bytes(2, "big") + wire)


@contextmanager
def name_server(respond: Respond, address: str = "127.0.0.1") -> Iterator[FakeNameServer]:
    """A name server on a free port."""
    with socket.create_server((address, 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        port = tcp.getsockname()[1]
        udp.bind((address, port))
        server = FakeNameServer(respond, NameServer(address, port))
        threads = server.run(udp, tcp)
        try:
            yield server
        finally:
            tcp.shutdown(socket.SHUT_RDWR)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", (address, port))
            for thread in threads:
                thread.join()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise EOFError
        data += more
    return data


@dataclass
class FakeWorld:
    """VMs and guests as a test has them; what was opened for whom."""

    vms: dict[str, list[str]] = field(default_factory=dict)
    guests: dict[str, Guest] = field(default_factory=dict)
    opened: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)
    on_open: Callable[[], None] = lambda: None

    def add_guest(self, address: str, *patterns: str, limited: bool = True) -> None:
        """A guest ``g`` that may look up these names, or all."""
        self.guests[address] = Guest("g", NamePatterns.parse(patterns) if limited else None)

    def world(self) -> World:
        """What the resolver gets."""
        return World(lambda name, _guest: self.vms.get(name), self._name_of, self.guests.get, self._open)

    def _name_of(self, address: str) -> str | None:
        return next((name for name, addresses in self.vms.items() if address in addresses), None)

    def _open(self, vm_id: str, addresses: Sequence[str], lifetime_s: int) -> None:
        self.on_open()
        self.opened.append((vm_id, tuple(addresses), lifetime_s))
