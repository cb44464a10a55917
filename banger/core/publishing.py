"""The syntax of ``-p``: ``[[ADDRESS:]HOST:]GUEST[/PROTOCOL]``, with port ranges, as in ``docker run``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_address

from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.port_forward import PortForward

PROTOCOLS = ("tcp", "udp")
#: Of one VM. Each takes a descriptor of its forwarder.
MOST_PORTS = 1000
LOOPBACK = "127.0.0.1"
_HINT = "write 8080:80, 53:53/udp, 8000-8010:8000-8010, 127.0.0.1::80, [::1]:8080:80 or 80"


def parse_publish(texts: Sequence[str]) -> list[PortForward]:
    """What was typed, in its order, ranges spelled out.

    Raises:
        BangerError: ``usage`` for what is no port forward, ``conflict`` for what contradicts itself.
    """
    forwards = [forward for text in texts for forward in parse(text)]
    check_forwards(forwards)
    return forwards


def parse(text: str) -> list[PortForward]:
    """One ``-p``. Raises ``usage``."""
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise _usage(text, f'"{protocol}" is neither tcp nor udp')
    address, host, guest = _split(text, rest)
    return _spelled_out(text, address, _range(text, host or "0"), _range(text, guest), protocol)


def _split(text: str, rest: str) -> tuple[str, str, str]:
    """Address, port or ports of the host, and of the guest."""
    if rest.startswith("["):
        inside, _, after = rest[1:].partition("]")
        parts = after.split(":")
        if len(parts) != 3 or parts[0]:
            raise _usage(text, "after an address in brackets come the host's port, which may be empty, and the guest's")
        return _address(text, inside, is_bracketed=True), parts[1], parts[2]
    *before, guest = rest.split(":")
    host = before.pop() if before else ""
    return _address(text, ":".join(before)), host, guest


def check_forwards(forwards: Sequence[PortForward]) -> None:
    """Refuse too many, and ports of the host that are published twice, wherever the request came from.

    Raises:
        BangerError: ``usage``, ``conflict``.
    """
    if len(forwards) > MOST_PORTS:
        message = f"{len(forwards)} published ports are more than the {MOST_PORTS} that a VM may have"
        hint = "publish fewer; with --network tap this host reaches every port at the guest's own address"
        raise BangerError(ErrorKind.USAGE, message, subject="--publish", hint=hint)
    seen: dict[tuple[str, int], list[PortForward]] = {}
    for forward in forwards:
        check_forward(forward)
        if not forward.host_port or forward.host_port_end:
            continue
        same = seen.setdefault((forward.protocol, forward.host_port), [])
        for other in same:
            if covers(other.host_address, forward.host_address):
                raise BangerError(
                    ErrorKind.CONFLICT,
                    f"{forward.protocol} port {forward.host_port} on {forward.host_address} is published twice",
                    subject=str(forward.host_port),
                    cause=f"for {other} and for {forward}",
                    hint="give each another port of the host, or leave it out: -p 80",
                )
        same.append(forward)


def check_forward(forward: PortForward) -> None:
    """Raise ``usage`` for ports, addresses and protocols that are none."""
    text = str(forward)
    if forward.protocol not in PROTOCOLS:
        raise _usage(text, f'"{forward.protocol}" is neither tcp nor udp')
    if forward.guest_port not in range(1, 65536) or forward.host_port not in range(65536):
        raise _usage(text, "ports are from 1 to 65535")
    if forward.host_port_end and forward.host_port_end not in range(forward.host_port, 65536):
        raise _usage(text, "a range ends after it begins")
    if _address(text, forward.host_address) != forward.host_address:
        raise _usage(text, f"write the address as {_address(text, forward.host_address)}")


def covers(one: str, other: str) -> bool:
    """True if the two addresses are the same, or one is every address of the other's kind."""
    if one == other:
        return True
    first, second = ip_address(one), ip_address(other)
    return first.version == second.version and (first.is_unspecified or second.is_unspecified)


def runs(forwards: Sequence[PortForward]) -> list[list[PortForward]]:
    """Neighbours together: ports of the host and of the guest that go up by one side by side."""
    found: list[list[PortForward]] = []
    for forward in forwards:
        last = found[-1][-1] if found else None
        if last is not None and forward == replace(last, host_port=last.host_port + 1, guest_port=last.guest_port + 1):
            found[-1].append(forward)
        else:
            found.append([forward])
    return found


def at(address: str, port: int) -> str:
    """``127.0.0.1:8080``, ``[::1]:8080``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _spelled_out(text: str, address: str, host: range, guest: range, protocol: str) -> list[PortForward]:
    if guest.start == 0:
        raise _usage(text, "ports are from 1 to 65535")
    if host == range(1):  # banger picks
        return [PortForward(port, 0, address, protocol) for port in guest]
    if host.start == 0:
        raise _usage(text, "port 0 of the host means any, and cannot be part of a range")
    if len(guest) == 1 and len(host) > 1:  # the first that is free
        return [PortForward(guest.start, host.start, address, protocol, host[-1])]
    if len(host) != len(guest):
        raise _usage(text, f"{len(host)} ports of the host are not {len(guest)} of the guest")
    return list(_pairs(address, host, guest, protocol))


def _pairs(address: str, host: range, guest: range, protocol: str) -> Iterator[PortForward]:
    for outer, inner in zip(host, guest, strict=True):
        yield PortForward(inner, outer, address, protocol)


def _range(text: str, ports: str) -> range:
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", ports, re.ASCII)
    if match is None:
        raise _usage(text)
    first, last = int(match[1]), int(match[2] or match[1])
    if last > 65535:
        raise _usage(text, "ports are from 1 to 65535")
    if last < first:
        raise _usage(text, "a range ends after it begins")
    return range(first, last + 1)


def _address(text: str, address: str, *, is_bracketed: bool = False) -> str:
    if not address and not is_bracketed:
        return LOOPBACK
    try:
        found = ip_address(address)
    except ValueError:
        cause = f'"{address}" is not an address' + (", but a name" if re.search("[g-zG-Z]", address) else "")
        raise _usage(text, cause) from None
    if is_bracketed and found.version != 6:
        raise _usage(text, "brackets are for IPv6 addresses")
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            raise _usage(text, "addresses of one link cannot be published at")
        found = found.ipv4_mapped or found
    return str(found)


def _usage(text: str, cause: str = "") -> BangerError:
    return BangerError(ErrorKind.USAGE, f'"{text}" is not a port forward', subject=text, cause=cause, hint=_HINT)
