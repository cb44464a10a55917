"""What this host itself can reach, which is what a guest must reach. Nothing is sent to the public internet."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from banger.posix.files import text_or_empty

_DNS_PORT = 53
_SIOCGIFMTU = 0x8921
_KNOCKED_PORTS = (53, 443, 80)
_ECHO_REQUEST, _ECHO_REPLY = 8, 0


@dataclass(frozen=True, slots=True)
class Route:
    """The default route by IPv4: the router, and the interface's largest packet (0: not told)."""

    gateway: IPv4Address
    interface: str
    mtu: int


@dataclass(frozen=True, slots=True)
class PortProbe:
    """A port that answers, be it with a refusal."""

    port: int
    accepts: bool


def default_route() -> Route | None:
    """The one with the smallest metric (``/proc/net/route``, proc(5)); None if this host has none with a router."""
    found = parse_routes(text_or_empty(Path("/proc/net/route")))
    return Route(*found, mtu_of(found[1])) if found else None


def mtu_of(interface: str) -> int:
    """An interface's largest packet (netdevice(7)); 0 if there is none of that name.

    Sysfs would tell as well, but it is that of the network namespace in which it was mounted.
    """
    request = struct.pack("16sI12x", interface.encode()[:15], 0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            answer = fcntl.ioctl(asking, _SIOCGIFMTU, request)
    except OSError:
        return 0
    return int(struct.unpack("16sI12x", answer)[1])


def parse_routes(table: str) -> tuple[IPv4Address, str] | None:
    """The default route's router and interface, from the kernel's table: hexadecimal numbers in its own byte order."""
    routes = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) >= 8 and words[1] == words[7] == "00000000" and words[2] != "00000000":
            gateway = IPv4Address(struct.pack("=I", int(words[2], 16)))
            routes.append((int(words[6]), gateway, words[0]))
    if not routes:
        return None
    _, gateway, interface = min(routes)
    return gateway, interface


def nameservers(resolv_conf: Path = Path("/etc/resolv.conf")) -> list[IPv4Address | IPv6Address]:
    """This host's name servers."""
    return parse_nameservers(text_or_empty(resolv_conf))


def parse_nameservers(text: str) -> list[IPv4Address | IPv6Address]:
    """The servers of a resolv.conf(5), in its order."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(ip_address(words[1].partition("%")[0]))
            except ValueError:
                continue
    return found


def answering(
    servers: Sequence[IPv4Address | IPv6Address], timeout_s: float = 2.0, port: int = _DNS_PORT
) -> list[IPv4Address | IPv6Address]:
    """Those that answer a question for ``localhost``, which none passes on (RFC 6761, 6.3); any answer counts."""
    return [server for server in servers if _answers(server, port, timeout_s)]


def _answers(server: IPv4Address | IPv6Address, port: int, timeout_s: float) -> bool:
    family = socket.AF_INET if server.version == 4 else socket.AF_INET6
    ident = secrets.token_bytes(2)
    question = ident + bytes.fromhex("0100 0001 0000 0000 0000") + b"\x09localhost\x00" + bytes.fromhex("0001 0001")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(timeout_s)
            asking.connect((str(server), port))
            asking.send(question)
            answer = asking.recv(2000)
    except OSError:
        return False
    return len(answer) >= 12 and answer[:2] == ident and bool(answer[2] & 0x80)


def reaches(host: str, port: int, timeout_s: float = 5.0) -> str:
    """Connect; empty if that works, else why not."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def knock(address: IPv4Address, timeout_s: float = 2.0) -> PortProbe | None:
    """What a router says to a TCP connection: the first port of a few usual ones that says anything, yes or no."""
    for port in _KNOCKED_PORTS:
        try:
            socket.create_connection((str(address), port), timeout_s).close()
        except ConnectionRefusedError:
            return PortProbe(port, accepts=False)
        except OSError:
            continue
        return PortProbe(port, accepts=True)
    return None


def pings(address: IPv4Address, timeout_s: float = 2.0) -> bool | None:
    """True if it answers an ICMP echo (RFC 792), None if this user may not ask."""
    ident = os.getpid() & 0xFFFF
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            asking = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        except OSError:
            continue
        with asking:
            asking.settimeout(timeout_s)
            try:
                asking.connect((str(address), 0))
                asking.send(_echo(ident))
                return _await_reply(asking, timeout_s, has_header=kind == socket.SOCK_RAW)
            except OSError:
                return False
    return None


def _await_reply(asking: socket.socket, timeout_s: float, *, has_header: bool) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        packet = asking.recv(2000)
        start = (packet[0] & 0xF) * 4 if has_header else 0
        if len(packet) > start and packet[start] == _ECHO_REPLY:
            return True
    return False


def _echo(ident: int) -> bytes:
    payload = b"banger checkup.."
    header = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, ident, 1)
    total = sum(struct.unpack(f"!{(len(header) + len(payload)) // 2}H", header + payload))
    total = (total >> 16) + (total & 0xFFFF)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", _ECHO_REQUEST, 0, checksum, ident, 1) + payload
