"""The addresses of guests: a subnet and an IPv6 prefix per installation, an address in both per VM. Pure.

All choices are made by hashing ids, so that they are the same again after a restart, and go on to the next candidate
where somebody else is there already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from banger.core.egress import Network
from banger.core.errors import BangerError, ErrorKind

_N = TypeVar("_N", IPv4Network, IPv6Network)

#: Where subnets are taken from. The carrier's shared space comes last: VPNs of the overlay kind live there.
_POOLS = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
#: Room for 1,021 guests; a bridge has 1,023 ports (``BR_MAX_PORTS`` in the kernel's net/bridge/br_private.h).
_PREFIX = 22
_TRIES_PER_POOL = 32
_SMALLEST, _LARGEST = 29, 8


@dataclass(frozen=True, slots=True)
class Plan:
    """The addresses of an installation. ``subnet6`` is None where there is no IPv6."""

    subnet: IPv4Network
    subnet6: IPv6Network | None

    @property
    def gateway(self) -> IPv4Address:
        """The bridge's own address: the first."""
        return self.subnet[1]

    @property
    def gateway6(self) -> IPv6Address | None:
        """The bridge's own IPv6 address."""
        return self.subnet6[1] if self.subnet6 else None

    def address(self, place: int) -> IPv4Address:
        """The IPv4 address at a place, which is at least 2."""
        return self.subnet[place]

    def address6(self, place: int) -> IPv6Address | None:
        """The IPv6 address at a place."""
        return self.subnet6[place] if self.subnet6 else None


def parse_subnet(text: str) -> IPv4Network:
    """Read the key ``network.subnet``; raises ``usage``."""
    try:
        subnet = IPv4Network(text)
    except ValueError as error:
        raise _bad_subnet(text, str(error)) from None
    if not _LARGEST <= subnet.prefixlen <= _SMALLEST:
        raise _bad_subnet(text, f"its prefix must be between /{_LARGEST} and /{_SMALLEST}")
    return subnet


def choose_plan(installation_id: str, routes: Iterable[Network], wanted: str = "", *, ipv6: bool = True) -> Plan:
    """Choose both networks so that they overlap with nothing that the host has a route to.

    Args:
        installation_id: decides which candidates come first.
        routes: destinations of the host's routes, without default routes and without those of our own bridge.
        wanted: the key ``network.subnet``; empty to choose.
        ipv6: choose an IPv6 prefix too.

    Raises:
        BangerError: ``usage`` for a subnet that is none, ``conflict`` for one that the host has a route to,
            ``exhausted`` if every candidate is taken.
    """
    known = list(routes)
    if wanted:
        subnet = parse_subnet(wanted)
        if other := _overlap(subnet, known):
            raise BangerError(
                ErrorKind.CONFLICT,
                f'the subnet "{subnet}" is in use on this host',
                subject=str(subnet),
                cause=f"there is a route to {other}",
                hint="set network.subnet to another one, or leave it empty: banger config show",
            )
    else:
        subnet = _first_free((_subnet(installation_id, index) for index in range(_TRIES_PER_POOL * len(_POOLS))), known)
    subnet6 = _first_free((_subnet6(installation_id, index) for index in range(_TRIES_PER_POOL)), known)
    return Plan(subnet, subnet6 if ipv6 else None)


def choose_place(vm_id: str, subnet: IPv4Network, taken: Collection[int]) -> int:
    """A VM's place in the subnet: always the same one unless another VM has it. Raises ``exhausted``."""
    # Not the network's own address, the gateway and the broadcast address.
    count = subnet.num_addresses - 3
    first = _number("place", vm_id) % count
    for step in range(count):
        place = 2 + (first + step) % count
        if place not in taken:
            return place
    raise BangerError(
        ErrorKind.EXHAUSTED,
        f'no free address in "{subnet}"',
        subject=str(subnet),
        hint="stop other VMs, or set network.subnet to a larger one once none runs",
    )


def mac_of(key: str) -> str:
    """A unicast, locally administered MAC address (IEEE 802: the two low bits of the first octet are 10)."""
    digest = hashlib.sha256(f"banger mac {key}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (digest[0] & 0xFC | 0x02, *digest[1:6]))


def link_local_of(mac: str) -> IPv6Address:
    """The link-local address that Linux makes from a MAC address (RFC 4291, appendix A)."""
    octets = [int(part, 16) for part in mac.split(":")]
    host = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return IPv6Address(b"\xfe\x80" + bytes(6) + host)


def _subnet(installation_id: str, index: int) -> IPv4Network:
    """Candidates go through 10.0.0.0/8 first; the other pools serve hosts with a route to all of it."""
    pool = _POOLS[index // _TRIES_PER_POOL]
    # Both ends of a pool are where people put networks by hand.
    count = (1 << (_PREFIX - pool.prefixlen)) - 16
    number = 8 + _number("subnet", f"{installation_id} {index}") % count
    return IPv4Network((int(pool.network_address) + (number << (32 - _PREFIX)), _PREFIX))


def _subnet6(installation_id: str, index: int) -> IPv6Network:
    """A unique local prefix: ``fd``, 40 bits of a hash, subnet 0 (RFC 4193, 3.1)."""
    digest = hashlib.sha256(f"banger ula {installation_id} {index}".encode()).digest()
    return IPv6Network((b"\xfd" + digest[:5] + bytes(10), 64))


def _number(purpose: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"banger {purpose} {key}".encode()).digest()[:8])


def _overlap(network: Network, known: Collection[Network]) -> Network | None:
    return next((other for other in known if other.version == network.version and other.overlaps(network)), None)


def _first_free(candidates: Iterable[_N], known: Collection[Network]) -> _N:
    for candidate in candidates:
        if _overlap(candidate, known) is None:
            return candidate
    raise BangerError(
        ErrorKind.EXHAUSTED,
        "no private subnet is free on this host",
        hint="set network.subnet to one that guests may have",
    )


def _bad_subnet(text: str, cause: str) -> BangerError:
    hint = "set network.subnet to something like 10.99.0.0/22"
    return BangerError(
        ErrorKind.USAGE, f'"{text}" is not a usable subnet for guests', subject=text, cause=cause, hint=hint
    )
