"""The addresses that an answer opens for a guest, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset

#: An address stays open at least so long: programs connect some time after they asked. Seconds.
SHORTEST_S = 60
#: And at most so long without being asked for again; the answer itself is not to be remembered for longer. Seconds.
LONGEST_S = 3600
#: Added to both: who uses an answer in the last moment of its life still finds the way open. Seconds.
GRACE_S = 30

#: No answer has more links than this in good faith.
_LONGEST_CHAIN = 16
#: RFC 6052 section 2.1: an IPv4 address behind a translator.
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Opening:
    """Addresses that a guest may reach for ``lifetime_s`` seconds from now."""

    addresses: tuple[str, ...]
    lifetime_s: int


def opening_of(question: dns.rrset.RRset, answer: Sequence[dns.rrset.RRset]) -> Opening | None:
    """What the answer to a question makes reachable, CNAMEs followed from the name that was asked; None if nothing.

    Records beside that chain do not count. Addresses that never are those of a service elsewhere (loopback,
    link-local with the metadata services of clouds, multicast) do not count either, whatever the answer says.
    """
    addresses: dict[str, None] = {}
    ttl_s = LONGEST_S
    for rrset in _chain(question.name, answer):
        ttl_s = min(ttl_s, rrset.ttl)
        if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            addresses |= dict.fromkeys(address for item in rrset if _may_open(address := item.address))
    if not addresses:
        return None
    return Opening(tuple(addresses), max(SHORTEST_S, ttl_s) + GRACE_S)


def limit_ttls(message: dns.message.Message) -> None:
    """Let nobody remember an answer for longer than its addresses stay open."""
    for section in (message.answer, message.authority, message.additional):
        for rrset in section:
            rrset.ttl = min(rrset.ttl, LONGEST_S)


def _chain(name: dns.name.Name, answer: Sequence[dns.rrset.RRset]) -> Iterator[dns.rrset.RRset]:
    """The record sets of a name and of those that it is an alias of."""
    for _ in range(_LONGEST_CHAIN):
        here = [rrset for rrset in answer if rrset.name == name and rrset.rdclass == dns.rdataclass.IN]
        yield from here
        aliases = [rrset for rrset in here if rrset.rdtype == dns.rdatatype.CNAME]
        if not aliases:
            return
        name = aliases[0][0].target


def _may_open(text: str) -> bool:
    address = _meant(ip_address(text))
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address
