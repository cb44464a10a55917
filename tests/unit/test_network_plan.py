"""Names, addresses and what the ledger keeps of a guest on a tap."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.egress import EgressPolicy
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Handle
from banger.core.wire.port_forward import PortForward
from banger.network.addresses import Plan, choose_place, choose_plan, link_local_of, mac_of
from banger.network.guests import Guest, guests_in
from banger.network.names import Alias, bridge_name, owner_of, table_name, tap_name, tap_pattern
from banger.network.resolver import parse_resolv_conf
from banger.network.sysctl import switched_on

INSTALLATION, VM = "0123456789ab", "fedcba987654"
ids = st.text("0123456789abcdef", min_size=12, max_size=12)


def alias(vm_id: str = VM, installation: str = INSTALLATION) -> str:
    return str(Alias(installation, vm_id, datetime(2026, 1, 2, tzinfo=UTC)))


@given(ids, ids)
def test_names_fit_an_interface_and_tell_whose_they_are(installation: str, vm_id: str) -> None:
    tap = tap_name(installation, vm_id)
    assert len(tap) <= 15
    assert len(bridge_name(installation)) <= 15
    assert installation in bridge_name(installation)
    assert installation in table_name(installation)
    assert tap.startswith(tap_pattern(installation).rstrip("*"))
    assert owner_of(tap, alias(vm_id, installation), installation) == vm_id
    assert vm_id.startswith(owner_of(tap, "", installation) or "?")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("eth0", ""),
        ("bt012345fedcbaX", ""),
        (tap_name("ffffff6789ab", VM), ""),
        (tap_name(INSTALLATION, VM), alias(installation="012345ffffff")),
        (tap_name(INSTALLATION, VM), alias(vm_id="000000000000")),
        (tap_name(INSTALLATION, VM), "somebody's own"),
    ],
)
def test_tap_of_somebody_else_is_not_ours(name: str, text: str) -> None:
    assert owner_of(name, text, INSTALLATION) is None


def test_alias_reads_back_and_foreign_ones_do_not() -> None:
    assert Alias.parse(alias()) == Alias(INSTALLATION, VM, datetime(2026, 1, 2, tzinfo=UTC))
    assert Alias.parse(alias(vm_id="")) == Alias(INSTALLATION, "", datetime(2026, 1, 2, tzinfo=UTC))
    assert Alias.parse("banger 0123456789ab - yesterday") is None


@given(ids)
def test_plan_is_private_and_the_same_every_time(installation: str) -> None:
    plan = choose_plan(installation, [])
    assert plan == choose_plan(installation, [IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/32")])
    assert plan.subnet.subnet_of(IPv4Network("10.0.0.0/8"))
    assert plan.subnet6
    assert plan.subnet6.subnet_of(IPv6Network("fd00::/8"))
    assert plan.gateway in plan.subnet


@given(ids)
def test_plan_goes_around_the_hosts_routes(installation: str) -> None:
    first = choose_plan(installation, [])
    assert first.subnet6
    second = choose_plan(installation, [first.subnet, first.subnet6])
    assert not second.subnet.overlaps(first.subnet)
    assert second.subnet6 != first.subnet6
    third = choose_plan(installation, [IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12")])
    assert third.subnet.subnet_of(IPv4Network("192.168.0.0/16"))


def test_plan_on_a_host_with_routes_to_every_private_network_is_refused() -> None:
    with pytest.raises(BangerError) as caught:
        choose_plan(INSTALLATION, [IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")])
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert "network.subnet" in caught.value.hint


def test_wished_subnet_is_taken_and_bad_ones_are_refused() -> None:
    assert choose_plan(INSTALLATION, [], "10.99.0.0/24", ipv6=False) == Plan(IPv4Network("10.99.0.0/24"), None)
    for text in ("10.99.0.1/24", "10.0.0.0/30", "0.0.0.0/0", "fd00::/64", "mine"):
        with pytest.raises(BangerError) as caught:
            choose_plan(INSTALLATION, [], text)
        assert caught.value.kind is ErrorKind.USAGE
    with pytest.raises(BangerError) as caught:
        choose_plan(INSTALLATION, [IPv4Network("10.99.0.128/25")], "10.99.0.0/24")
    assert caught.value.kind is ErrorKind.CONFLICT
    assert "10.99.0.128/25" in caught.value.cause


@given(st.lists(ids, min_size=5, max_size=5, unique=True))
def test_places_are_distinct_usable_and_stable(vms: list[str]) -> None:
    subnet = IPv4Network("192.0.2.0/29")  # room for five guests
    taken: list[int] = []
    for vm_id in vms:
        taken.append(choose_place(vm_id, subnet, taken))
    assert sorted(taken) == [2, 3, 4, 5, 6]
    assert choose_place(vms[0], subnet, ()) == taken[0]
    with pytest.raises(BangerError) as caught:
        choose_place(vms[0], subnet, taken)
    assert caught.value.kind is ErrorKind.EXHAUSTED


@given(ids)
def test_mac_is_unicast_and_local(vm_id: str) -> None:
    assert int(mac_of(vm_id)[:2], 16) & 3 == 2


def test_link_local_address_follows_the_mac() -> None:
    assert link_local_of("02:11:22:33:44:55") == IPv6Address("fe80::11:22ff:fe33:4455")


def test_guest_reads_back_from_the_ledger_and_damage_does_not_hide_others() -> None:
    plan = choose_plan(INSTALLATION, [])
    forwards = (PortForward(80, 8080), PortForward(81, 8081, "0.0.0.0"))
    egress = EgressPolicy.parse("allow=192.0.2.0/24 allow-names=a.example")
    guest = Guest(VM, tap_name(INSTALLATION, VM), mac_of(VM), plan, plan.address(7), egress, forwards)
    kept = Handle(VM, "address", str(guest.address), "active", guest.detail())
    damaged = Handle("0" * 12, "address", "10.0.0.9", "intended", {"tap": "bt0"})
    assert guests_in([damaged, kept, Handle(VM, "tap", guest.tap, "active")]) == [guest]
    assert guest.place == 7
    assert str(guest.address6).endswith("::7")


def test_servers_of_resolv_conf_are_read_in_order() -> None:
    text = "# x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 192.0.2.53 \nsearch example\nnameserver\n"
    assert list(parse_resolv_conf(text)) == [IPv4Address("127.0.0.53"), IPv4Address("192.0.2.53")]


def test_damaged_memory_of_switches_reads_as_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("state") / "network.json"
    assert switched_on(file) == []
    for text in ("", "[]", '{"switched_on": 3}', '{"switched_on'):
        file.write_text(text)
        assert switched_on(file) == []
