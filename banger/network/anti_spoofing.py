"""Anti-spoofing: a guest may send frames from its own addresses only. Rules of nftables' bridge family. Pure.

ARP and neighbour discovery are how a guest says which address is its own, so they are checked too: without that a
guest could have the host send it what is meant for a sibling.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address

from banger.network.addresses import link_local_of
from banger.network.guests import Guest

#: The map from a tap to the chain of its guest.
FRAMES = "frames"
#: The target of a neighbour advertisement: 16 bytes after the 8 of the ICMPv6 header (RFC 4861, 4.4). Nft before 1.0.7
#: has no word for it.
_TARGET = "@th,64,128"
_ASKING = "nd-neighbor-solicit, nd-router-solicit, mld-listener-report, mld2-listener-report"
#: ICMPv6 by its number: nft takes its name from /etc/protocols, which small systems do not have.
_ICMPV6 = 58


def guards(guests: Sequence[Guest]) -> list[str]:
    """The lines of the table that are about guests: a chain each, and which tap has which."""
    lines: list[str] = []
    for guest in guests:
        lines += [f"chain vm_{guest.vm_id} {{", *(f"\t{line}" for line in frame_rules(guest)), "}"]
    by_tap = ", ".join(f'"{guest.tap}" : goto vm_{guest.vm_id}' for guest in guests)
    elements = [f"\telements = {{ {by_tap} }}"] if guests else []
    return [*lines, f"map {FRAMES} {{", "\ttype ifname : verdict;", *elements, "}"]


def hook(tap_pattern: str) -> list[str]:
    """The other lines. A tap that matches ``tap_pattern`` and that no guest has may send nothing."""
    return [
        "chain prerouting {",
        "\ttype filter hook prerouting priority -300; policy accept;",
        f"\tiifname vmap @{FRAMES}",
        f'\tiifname "{tap_pattern}" drop',
        "}",
    ]


def frame_rules(guest: Guest) -> list[str]:
    """The chain for frames from one guest's tap."""
    lines = [
        f"ether saddr != {guest.mac} drop",
        # 0.0.0.0 is a probe whether an address is free (RFC 5227); it claims nothing.
        f"ether type arp arp saddr ether {guest.mac} arp saddr ip {{ {guest.address}, 0.0.0.0 }} accept",
        f"ether type ip ip saddr {guest.address} accept",
    ]
    if guest.address6 is not None:
        own = link_local_of(guest.mac)
        lines += [
            "icmpv6 type { nd-router-advert, nd-redirect } drop",
            f"icmpv6 type nd-neighbor-advert {_TARGET} != {_hex(guest.address6)} {_TARGET} != {_hex(own)} drop",
            f"ip6 saddr {guest.address6} accept",
            f"ip6 saddr {own} meta l4proto {_ICMPV6} accept",
            # The unspecified address asks whether an address is free, or for routers; it claims nothing.
            f"ip6 saddr :: icmpv6 type {{ {_ASKING} }} accept",
        ]
    return [*lines, "drop"]


def _hex(address: IPv6Address) -> str:
    return f"0x{address.packed.hex()}"
