"""The packet filter of one installation, as text for ``nft -f`` (nft(8)). Pure.

Two tables of our own, one name: family ``inet`` for addresses and ports, family ``bridge`` for what a guest's card may
send at all. The text replaces both in one transaction, so there is no instant without rules.

A verdict ``accept`` here does not keep somebody else's table from dropping a packet later; see
:mod:`banger.network.coexistence`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address

from banger.core.egress import NEVER, PRIVATE, EgressMode, Network
from banger.core.wire.port_forward import PortForward
from banger.network.addresses import Plan
from banger.network.anti_spoofing import guards, hook
from banger.network.guests import Guest
from banger.network.names import bridge_name, table_name, tap_pattern
from banger.network.resolver import DNS_PORT, Resolver

#: ``(address, seconds left)`` of each dynamic set, by the set's name.
Elements = Mapping[str, Sequence[tuple[str, int]]]

#: The set of those who may ask the resolver, and the maps from a guest's address to the chain that decides about it.
RESOLVING, EGRESS = "resolving", "egress"

_ANY = IPv4Address(0)
_LOOPBACK = "127.0.0.0/8"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Everything that the rules depend on.

    Attributes:
        installation_id: names the tables, the bridge and the taps.
        guests: all that run, at least one; all of the same plan.
        elements: what the sets of allowed names hold already.
        refused: what no guest reaches, whatever its policy, besides what none ever does.
    """

    installation_id: str
    plan: Plan
    guests: Sequence[Guest]
    resolver: Resolver | None = None
    elements: Elements = field(default_factory=dict)
    refused: Sequence[Network] = ()

    @property
    def table(self) -> str:
        """The name of both tables."""
        return table_name(self.installation_id)

    @property
    def bridge(self) -> str:
        """The name of the bridge."""
        return bridge_name(self.installation_id)

    @property
    def needs_loopback(self) -> bool:
        """Packets between loopback addresses and the bridge must be routed."""
        answers = self.resolver is not None and self.resolver.is_loopback and bool(self.resolving)
        return answers or any(guest.needs_loopback for guest in self.guests)

    @property
    def resolving(self) -> list[Guest]:
        """Guests whose questions reach the resolver. One that is confined to names needs one that follows them."""
        if self.resolver is None:
            return []
        follows = self.resolver.follows_names
        return [guest for guest in self.guests if _asks(guest, follows_names=follows)]

    def render(self) -> str:
        """The whole transaction."""
        bridge = [*guards(self.guests), *hook(tap_pattern(self.installation_id))]
        return "\n".join(
            [
                *_replace("inet", self.table),
                *_block(f"table inet {self.table}", [*self._of_guests(), *self._of_all()]),
                *_replace("bridge", self.table),
                *_block(f"table bridge {self.table}", bridge),
                "",
            ]
        )

    def render_guests(self) -> list[str]:
        """What is about these guests, to be added to tables that are there."""
        return [
            *_block(f"table inet {self.table}", self._of_guests()),
            *_block(f"table bridge {self.table}", guards(self.guests)),
        ]

    def render_shared(self) -> str:
        """What is the same for all guests, to be compared."""
        return "\n".join(Ruleset._of_all(replace(self, guests=(), elements={})))

    # -- the inet table --------------------------------------------------------------------------------

    def _of_guests(self) -> list[str]:
        """Whatever is about one of them; beside it, only :meth:`_published` in shared chains is."""
        chains = [line for guest in self.guests for line in _block(f"chain vm_{guest.vm_id}", egress_rules(guest))]
        verdicts = {
            4: [f"{guest.address} : goto vm_{guest.vm_id}" for guest in self.guests],
            6: [f"{guest.address6} : goto vm_{guest.vm_id}" for guest in self.guests if guest.address6 is not None],
        }
        return [
            *self._names(),
            *chains,
            *_set(RESOLVING, "ipv4_addr", [str(guest.address) for guest in self.resolving]),
            *_set(f"{EGRESS}4", "ipv4_addr : verdict", verdicts[4], noun="map"),
            *_set(f"{EGRESS}6", "ipv6_addr : verdict", verdicts[6], noun="map"),
        ]

    def _of_all(self) -> list[str]:
        return [
            *self._sets(),
            *_block("chain early", self._early()),
            *_block("chain prerouting", self._prerouting()),
            *_block("chain output", self._output()),
            *_block("chain postrouting", self._postrouting()),
            *_block("chain refuse", _REFUSE),
            *_block("chain from_guest", self._from_guest()),
            *_block("chain to_guest", self._to_guest()),
            *_block("chain to_host", self._to_host()),
            *_block("chain forward", self._forward()),
            *_block("chain input", self._input()),
        ]

    def _sets(self) -> list[str]:
        published: dict[int, list[str]] = {4: [], 6: []}
        for guest, forward in self._published():
            version = ip_address(forward.host_address).version
            address = guest.address if version == 4 else guest.address6
            published[version].append(f"{address} . {forward.protocol} . {forward.guest_port}")
        lines = [
            *_set("published4", "ipv4_addr . inet_proto . inet_service", dict.fromkeys(published[4])),
            *_set("published6", "ipv6_addr . inet_proto . inet_service", dict.fromkeys(published[6])),
        ]
        for name, networks in (("never", (*NEVER, *self.refused)), ("private", PRIVATE)):
            for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
                members = _merged(network for network in networks if network.version == version)
                lines += _set(f"{name}{version}", kind, members, "interval")
        return lines

    def _names(self) -> list[str]:
        lines: list[str] = []
        for guest in self.guests:
            if guest.egress.names:
                for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
                    name = names_set(guest.vm_id, version)
                    held = [f"{address} timeout {seconds}s" for address, seconds in self.elements.get(name, ())]
                    lines += _set(name, kind, held, "timeout")
        return lines

    def _early(self) -> list[str]:
        return [
            "type filter hook prerouting priority raw; policy accept;",
            f"iifname {_quoted(self.bridge)} ip daddr {_LOOPBACK} drop",
        ]

    def _prerouting(self) -> list[str]:
        lines = ["type nat hook prerouting priority dstnat; policy accept;"]
        if self.resolver is not None and not self._answers_at_gateway:
            lines.append(
                f"iifname {_quoted(self.bridge)} ip saddr @{RESOLVING} ip daddr {self.plan.gateway} "
                f"meta l4proto {{ tcp, udp }} th dport {DNS_PORT} "
                f"dnat ip to {self._resolver_address}:{self.resolver.port}"
            )
        # What is published is for the host and the world; a guest would reach a sibling by it.
        lines.append(f"iifname {_quoted(self.bridge)} return")
        return lines + [
            _publish(guest, forward)
            for guest, forward in self._published()
            if not ip_address(forward.host_address).is_loopback
        ]

    def _output(self) -> list[str]:
        lines = ["type nat hook output priority -100; policy accept;"]
        return lines + [_publish(guest, forward) for guest, forward in self._published()]

    def _postrouting(self) -> list[str]:
        bridge, plan = _quoted(self.bridge), self.plan
        lines = [
            "type nat hook postrouting priority srcnat; policy accept;",
            # A connection to a published loopback port: no guest could answer 127.0.0.1.
            f"oifname {bridge} ip saddr {_LOOPBACK} masquerade",
            f"ip saddr {plan.subnet} oifname != {bridge} masquerade",
        ]
        if plan.subnet6:
            lines.append(f"ip6 saddr {plan.subnet6} oifname != {bridge} masquerade")
        return lines

    def _forward(self) -> list[str]:
        bridge = _quoted(self.bridge)
        clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
        return [
            "type filter hook forward priority filter; policy accept;",
            # A way out that is narrower than the bridge, such as a VPN that came up later.
            f"iifname {bridge} {clamp}",
            f"oifname {bridge} {clamp}",
            f"iifname {bridge} jump from_guest",
            f"oifname {bridge} jump to_guest",
        ]

    def _from_guest(self) -> list[str]:
        return [
            "ct state established,related accept",
            "ct state invalid drop",
            *self._accept_questions(),
            # Somebody else's rule rewrote the destination: the guest had asked for a port of this host.
            "ct status dnat goto refuse",
            f"oifname {_quoted(self.bridge)} goto refuse",
            "ip daddr @never4 goto refuse",
            "ip6 daddr @never6 goto refuse",
            f"ip saddr vmap @{EGRESS}4",
            *([f"ip6 saddr vmap @{EGRESS}6"] if self.plan.subnet6 else []),
            "goto refuse",
        ]

    def _to_guest(self) -> list[str]:
        return [
            "ct state established,related accept",
            "ct status dnat ip daddr . meta l4proto . th dport @published4 accept",
            "ct status dnat ip6 daddr . meta l4proto . th dport @published6 accept",
            "drop",
        ]

    def _input(self) -> list[str]:
        return [
            "type filter hook input priority filter; policy accept;",
            f"iifname {_quoted(self.bridge)} jump to_host",
        ]

    def _to_host(self) -> list[str]:
        return [
            "ct state established,related accept",
            "ct state invalid drop",
            *self._accept_questions(),
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
            "meta pkttype != host drop",
            "goto refuse",
        ]

    def _accept_questions(self) -> list[str]:
        """Questions of those who may ask, to where the nat chain sends them."""
        if self.resolver is None:
            return []
        # What is already where it belongs is not rewritten, and then the kernel does not say that it was.
        status = "" if self._answers_at_gateway else "ct status dnat "
        to_resolver = f"ip daddr {self._resolver_address} meta l4proto {{ tcp, udp }} th dport {self.resolver.port}"
        return [f"{status}ip saddr @{RESOLVING} {to_resolver} accept"]

    @property
    def _answers_at_gateway(self) -> bool:
        return (self._resolver_address, self.resolver and self.resolver.port) == (self.plan.gateway, DNS_PORT)

    @property
    def _resolver_address(self) -> IPv4Address:
        return (self.resolver and self.resolver.address) or self.plan.gateway

    def _published(self) -> Iterable[tuple[Guest, PortForward]]:
        return ((guest, forward) for guest in self.guests for forward in guest.translated)


def names_set(vm_id: str, version: int) -> str:
    """The set that holds what a VM's allowed names stand for now."""
    return f"names{version}_{vm_id}"


def egress_rules(guest: Guest) -> list[str]:
    """The chain that decides about new connections of one guest."""
    policy = guest.egress
    if policy.mode is EgressMode.NONE:
        return ["goto refuse"]
    if policy.mode is EgressMode.OPEN:
        return ["accept"]
    if policy.mode is EgressMode.PUBLIC:
        return ["ip daddr @private4 goto refuse", "ip6 daddr @private6 goto refuse", "accept"]
    lines = []
    for version, family in ((4, "ip"), (6, "ip6")):
        networks = _merged(network for network in policy.networks if network.version == version)
        if networks:
            lines.append(f"{family} daddr {{ {', '.join(networks)} }} accept")
        if policy.names:
            lines.append(f"{family} daddr @{names_set(guest.vm_id, version)} accept")
    return [*lines, "goto refuse"]


#: Refusing with an answer makes a program inside fail at once instead of after minutes.
_REFUSE = ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"]


def _asks(guest: Guest, *, follows_names: bool) -> bool:
    policy = guest.egress
    return (
        bool(policy.names) and follows_names if policy.mode is EgressMode.ALLOW else policy.mode is not EgressMode.NONE
    )


def _publish(guest: Guest, forward: PortForward) -> str:
    address = ip_address(forward.host_address)
    port = f"{forward.protocol} dport {forward.host_port}"
    if address.version == 6:
        return f"ip6 daddr {address} {port} dnat ip6 to [{guest.address6}]:{forward.guest_port}"
    here = "meta nfproto ipv4 fib daddr type local" if address == _ANY else f"ip daddr {address}"
    return f"{here} {port} dnat ip to {guest.address}:{forward.guest_port}"


def _merged(networks: Iterable[Network]) -> list[str]:
    """Networks without those that lie in others, which nft refuses in one set."""
    kept: list[Network] = []
    for network in sorted(networks, key=lambda one: (one.prefixlen, int(one.network_address))):
        if not any(network.subnet_of(other) for other in kept):  # type: ignore[arg-type]
            kept.append(network)
    return [str(network) for network in kept]


def _replace(family: str, table: str) -> list[str]:
    """Naming a table makes it, so that deleting it never fails."""
    return [f"table {family} {table}", f"delete table {family} {table}"]


def _set(name: str, kind: str, elements: Iterable[str], flags: str = "", noun: str = "set") -> list[str]:
    members = ", ".join(elements)
    lines = [f"type {kind};"]
    lines += [f"flags {flags};"] if flags else []
    lines += [f"elements = {{ {members} }}"] if members else []
    return _block(f"{noun} {name}", lines)


def _block(head: str, lines: Iterable[str]) -> list[str]:
    return [f"{head} {{", *(f"\t{line}" for line in lines), "}"]


def _quoted(name: str) -> str:
    return f'"{name}"'
