"""Finding other firewalls on the host that block guests, for ``banger doctor``.

In netfilter every table is asked, and a drop by any of them is final (nft(8), "verdict statements"): no rule of ours
can overrule Docker's, ufw's or firewalld's. So theirs are looked at, never changed, and the remedy is printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from banger.core.errors import BangerError
from banger.network.links import all_links
from banger.network.loopback import has_guard
from banger.network.names import bridge_name, owner_of, table_name
from banger.network.sysctl import read_switch, switched_on
from banger.network.tools import try_tool
from banger.posix.programs import find_program

_LEGACY_TABLES = Path("/proc/net/ip_tables_names")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about this host that users of taps should know.

    Attributes:
        remedy: a command to type; empty if nothing is wrong and this is only worth knowing.
    """

    name: str
    problem: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of somebody's packet filter. ``hook`` and ``policy`` are empty for one that is only jumped to."""

    family: str
    table: str
    name: str
    hook: str = ""
    policy: str = ""


def find(installation_id: str, state_file: Path) -> list[Finding]:
    """Look at the host. What cannot be looked at is itself a finding."""
    bridge = bridge_name(installation_id)
    try:
        rules = try_tool("nft", "list", "ruleset")[1]
        chains = parse_chains(try_tool("nft", "-j", "list", "chains")[1])
    except BangerError as error:
        return [Finding("firewall", f"cannot be looked at: {error}", error.hint)]
    chains = [chain for chain in chains if chain.table != table_name(installation_id)]
    legacy = _legacy_rules()
    return [
        *firewalls(chains, rules, bridge, zone_of=_firewalld_zone),
        *legacy_firewall(legacy, bridge),
        *forwarding(switched_on(state_file), read_switch),
        *_unguarded(installation_id),
    ]


def parse_chains(text: str) -> list[Chain]:
    """Read ``nft -j list chains`` (libnftables-json(5))."""
    try:
        objects = json.loads(text or "{}").get("nftables", [])
    except ValueError:
        return []
    chains = [one["chain"] for one in objects if "chain" in one]
    return [
        Chain(one["family"], one["table"], one["name"], one.get("hook", ""), one.get("policy", "")) for one in chains
    ]


def firewalls(chains: list[Chain], rules: str, bridge: str, zone_of: Callable[[str], str]) -> Iterator[Finding]:
    """Whose chains would drop what guests send or are sent.

    Args:
        chains: all but ours.
        rules: ``nft list ruleset``, to see whether the remedy was applied.
        bridge: our bridge.
        zone_of: firewalld's zone of an interface; empty for none.
    """
    names = {chain.name for chain in chains}
    settled = set()
    if "DOCKER-USER" in names:
        settled.add("FORWARD")
        if _drops(chains, "FORWARD") and not _mentions(rules, "DOCKER-USER", bridge):
            yield Finding("docker", "Docker drops what it does not know, guests' packets too", _docker_remedy(bridge))
    if any(name.startswith("ufw-") for name in names):
        settled |= {"FORWARD", "INPUT"}
        if _drops(chains, "FORWARD") and not _mentions(rules, "ufw-user-forward", bridge):
            remedy = f"ufw route allow in on {bridge}; ufw route allow out on {bridge}; ufw allow in on {bridge}"
            yield Finding("ufw", "ufw drops forwarded packets, guests' too", remedy)
    if any(chain.table == "firewalld" for chain in chains) and zone_of(bridge) != "trusted":
        remedy = f"firewall-cmd --permanent --zone=trusted --add-interface={bridge}; firewall-cmd --reload"
        yield Finding("firewalld", "firewalld refuses forwarded packets of interfaces without a zone", remedy)
    for chain in chains:
        if chain.hook == "forward" and chain.policy == "drop" and chain.name not in settled:
            where = f"{chain.family} {chain.table} {chain.name}"
            if bridge not in _body(rules, chain.name):
                remedy = (
                    f"nft insert rule {where} iifname {bridge} accept; nft insert rule {where} oifname {bridge} accept"
                )
                yield Finding("firewall", f'the chain "{where}" drops forwarded packets', remedy)


def legacy_firewall(rules: str, bridge: str) -> Iterator[Finding]:
    """The same for ``iptables-legacy -S``, which ``nft`` does not show."""
    if "-P FORWARD DROP" not in rules or f"-i {bridge} " in rules:
        return
    chain = "DOCKER-USER" if "-N DOCKER-USER" in rules else "FORWARD"
    remedy = f"iptables-legacy -I {chain} -i {bridge} -j ACCEPT; iptables-legacy -I {chain} -o {bridge} -j ACCEPT"
    yield Finding("iptables-legacy", "its FORWARD chain drops guests' packets", remedy)


def forwarding(switches: list[str], read: Callable[[str], str]) -> Iterator[Finding]:
    """What banger switched on for the whole host, and whether somebody switched it off again."""
    if switches:
        names = ", ".join(f"net.{name.replace('/', '.')}" for name in switches)
        yield Finding("forwarding", f"switched on by banger for guests on taps: {names}")
    for name in switches:
        if read(name) == "0":
            key = f"net.{name.replace('/', '.')}"
            yield Finding("forwarding", f"{key} is off again: guests are cut off", f"sysctl -w {key}=1")


def _unguarded(installation_id: str) -> Iterator[Finding]:
    if read_switch(f"ipv4/conf/{bridge_name(installation_id)}/route_localnet") != "1" or not find_program("tc"):
        return
    taps = [link.name for link in all_links() if owner_of(link.name, link.alias, installation_id) is not None]
    if bare := [tap for tap in taps if not has_guard(tap)]:
        problem = f"loopback addresses are routed to guests without a filter on {', '.join(bare)}"
        yield Finding("loopback guard", problem, "banger daemon restart")


def _drops(chains: list[Chain], name: str) -> bool:
    """An iptables chain of this name drops what it does not know."""
    return any(chain.name == name and chain.policy == "drop" for chain in chains)


def _mentions(rules: str, chain: str, bridge: str) -> bool:
    """One of the chain's rules is about our bridge; there may be a chain of that name in several families."""
    return bridge in _body(rules, chain)


def _body(rules: str, chain: str) -> str:
    return "\n".join(re.findall(rf"chain {re.escape(chain)} \{{(.*?)\n\t\}}", rules, re.DOTALL))


def _docker_remedy(bridge: str) -> str:
    return f"iptables -I DOCKER-USER -i {bridge} -j ACCEPT; iptables -I DOCKER-USER -o {bridge} -j ACCEPT"


def _legacy_rules() -> str:
    """Empty if legacy iptables are not in use; asking would load their modules."""
    try:
        if "filter" not in _LEGACY_TABLES.read_text(encoding="utf-8").split() or not find_program("iptables-legacy"):
            return ""
        return try_tool("iptables-legacy", "-S")[1]
    except (OSError, BangerError):
        return ""


def _firewalld_zone(bridge: str) -> str:
    if not find_program("firewall-cmd"):
        return ""
    try:
        return try_tool("firewall-cmd", f"--get-zone-of-interface={bridge}")[1].strip()
    except BangerError:
        return ""
