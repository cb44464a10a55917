"""The text of the rules, and what is read from nft's answers. That the kernel takes it is for test_network_tap."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network

import pytest

from banger.core.egress import EgressPolicy
from banger.core.wire.port_forward import PortForward
from banger.network import coexistence, nft
from banger.network.addresses import Plan, choose_plan, mac_of
from banger.network.coexistence import Chain
from banger.network.guests import Guest
from banger.network.names import tap_name
from banger.network.probe import has_net_admin
from banger.network.resolver import Resolver
from banger.network.rules import Ruleset, egress_rules

INSTALLATION = "0123456789ab"
PLAN = choose_plan(INSTALLATION, [])
BRIDGE = "bg0123456789ab"


def guest(number: int, egress: str = "open", plan: Plan = PLAN, ports: tuple[PortForward, ...] = ()) -> Guest:
    vm_id = f"{number:012x}"
    policy = EgressPolicy.parse(egress)
    return Guest(vm_id, tap_name(INSTALLATION, vm_id), mac_of(vm_id), plan, plan.address(number), policy, ports)


def test_rules_replace_both_tables_in_one_text() -> None:
    text = Ruleset(INSTALLATION, PLAN, [guest(2)]).render()
    lines = [line for line in text.splitlines() if not line.startswith(("\t", "}"))]
    table = f"banger_{INSTALLATION}"
    assert lines == [
        line
        for family in ("inet", "bridge")
        for line in (f"table {family} {table}", f"delete table {family} {table}", f"table {family} {table} {{")
    ]


def test_rules_without_ipv6_do_not_speak_of_it() -> None:
    plan = Plan(IPv4Network("10.99.0.0/24"), None)
    text = Ruleset(INSTALLATION, plan, [guest(2, plan=plan)]).render()
    assert "ip6 saddr" not in text
    assert "None" not in text


def test_rules_name_no_protocol_that_nft_would_look_up_in_a_file_of_the_host() -> None:
    """Small systems have no /etc/protocols; what nft knows by itself are tcp and udp."""
    text = Ruleset(INSTALLATION, PLAN, [guest(2, ports=(PortForward(80, 8080),))]).render()
    named = re.findall(r"l4proto (?:!= )?\{?\s*([a-z][\w-]*)", text)
    assert set(named) <= {"tcp", "udp"}


def test_networks_within_others_are_left_out_as_nft_refuses_overlaps() -> None:
    rules = egress_rules(guest(2, "allow=10.1.0.0/16,10.0.0.0/8,192.0.2.1,10.0.0.0/9"))
    assert rules == ["ip daddr { 10.0.0.0/8, 192.0.2.1/32 } accept", "goto refuse"]


@pytest.mark.parametrize(
    ("address", "egress", "resolver", "needed"),
    [
        ("127.0.0.1", "open", None, True),
        ("127.0.0.5", "open", None, True),
        ("0.0.0.0", "open", None, True),
        ("192.0.2.1", "open", None, False),
        ("192.0.2.1", "open", Resolver(IPv4Address("127.0.0.1")), True),
        ("192.0.2.1", "none", Resolver(IPv4Address("127.0.0.1")), False),
        ("192.0.2.1", "open", Resolver(None), False),
        ("192.0.2.1", "allow-names=a.example", Resolver(IPv4Address("127.0.0.1")), False),
        ("192.0.2.1", "allow-names=a.example", Resolver(IPv4Address("127.0.0.1"), follows_names=True), True),
    ],
)
def test_loopback_is_routed_only_for_who_needs_it(
    address: str, egress: str, resolver: Resolver | None, needed: bool
) -> None:
    one = guest(2, egress, ports=(PortForward(80, 8080, address),))
    assert Ruleset(INSTALLATION, PLAN, [one], resolver).needs_loopback is needed


def test_what_is_read_from_a_set_leaves_out_what_expires_now() -> None:
    text = (
        '{"nftables": [{"metainfo": {}}, {"set": {"name": "names4_1", "elem": ['
        '{"elem": {"val": "192.0.2.1", "timeout": 60, "expires": 42}},'
        '{"elem": {"val": "192.0.2.2", "timeout": 60, "expires": 0}}]}}]}'
    )
    assert nft.parse_elements(text) == [("192.0.2.1", 42)]
    assert nft.parse_elements('{"nftables": [{"set": {"name": "names4_1"}}]}') == []


# -- other firewalls -------------------------------------------------------------------------------------


def forward(name: str = "FORWARD", policy: str = "drop", table: str = "filter") -> Chain:
    return Chain("ip", table, name, "forward", policy)


def find(chains: list[Chain], rules: str = "", zone: str = "") -> list[tuple[str, str]]:
    return [(one.name, one.remedy) for one in coexistence.firewalls(chains, rules, BRIDGE, lambda _: zone)]


def test_host_without_other_firewalls_has_no_finding() -> None:
    assert find([]) == []
    assert find([forward(policy="accept")]) == []
    assert find([forward(policy="accept"), Chain("ip", "filter", "DOCKER-USER")]) == []


def test_docker_that_drops_is_found_until_its_chain_lets_the_bridge_pass() -> None:
    chains = [forward(), Chain("ip", "filter", "DOCKER-USER")]
    ((name, remedy),) = find(chains)
    assert name == "docker"
    assert f"iptables -I DOCKER-USER -i {BRIDGE} -j ACCEPT" in remedy
    elsewhere = (
        f'table ip filter {{\n\tchain FORWARD {{\n\t\tiifname "{BRIDGE}"\n\t}}\n\tchain DOCKER-USER {{\n\t}}\n}}'
    )
    assert find(chains, elsewhere)
    assert not find(chains, f'table ip filter {{\n\tchain DOCKER-USER {{\n\t\tiifname "{BRIDGE}" accept\n\t}}\n}}')


def test_ufw_is_found() -> None:
    ((name, remedy),) = find([forward(), Chain("ip", "filter", "ufw-user-forward")])
    assert name == "ufw"
    assert f"ufw route allow in on {BRIDGE}" in remedy


def test_firewalld_is_found_unless_the_bridge_is_trusted() -> None:
    chains = [Chain("inet", "firewalld", "filter_FORWARD", "forward", "accept")]
    assert [name for name, _ in find(chains)] == ["firewalld"]
    assert find(chains, zone="trusted") == []


def test_legacy_iptables_are_found() -> None:
    rules = "-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n"
    (found,) = coexistence.legacy_firewall(rules, BRIDGE)
    assert "iptables-legacy -I DOCKER-USER" in found.remedy
    assert not list(coexistence.legacy_firewall(f"{rules}-A DOCKER-USER -i {BRIDGE} -j ACCEPT\n", BRIDGE))
    assert not list(coexistence.legacy_firewall("-P FORWARD ACCEPT\n", BRIDGE))


def test_forwarding_that_was_switched_off_again_is_found_with_its_remedy() -> None:
    switches = {"ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "1"}
    found = list(coexistence.forwarding(list(switches), switches.__getitem__))
    assert [one.remedy for one in found] == ["", "sysctl -w net.ipv4.ip_forward=1"]


def test_net_admin_is_read_from_the_effective_capabilities() -> None:
    assert has_net_admin("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000001000\n")
    assert not has_net_admin("Name:\tx\nCapPrm:\t0000000000001000\nCapEff:\t0000000000000000\n")
    assert not has_net_admin("")
