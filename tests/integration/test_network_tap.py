"""What guests on taps reach and what reaches them: a host, the world and guests, each in a network namespace."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.port_forward import PortForward
from banger.network import nft, tap
from banger.network.names import bridge_name, table_name, tap_name
from banger.network.resolver import Resolver
from tests.support.netlab import (
    HOST,
    HOST6,
    INSTALLATION,
    METADATA,
    OTHER_SERVER,
    PRIVATE_SERVER,
    SERVER,
    SERVER6,
    WORLD,
    WORLD6,
    Guest,
    Lab,
    make_vm,
    needs_taps,
)
from tests.support.packets import arp_reply, ethernet, ipv4_udp, ipv6_udp, neighbour_advertisement
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_taps]


with_and_without_bridge_netfilter = pytest.mark.parametrize(
    "lab",
    [
        pytest.param(False, id="plain"),
        pytest.param(
            True,
            id="br_netfilter",
            marks=pytest.mark.skipif(not Path("/proc/sys/net/bridge").is_dir(), reason="needs br_netfilter"),
        ),
    ],
    indirect=True,
)


# -- reaching and being reached --------------------------------------------------------------------------


@with_and_without_bridge_netfilter
def test_guest_on_tap_reaches_the_world_as_its_host(lab: Lab) -> None:
    guest = lab.guest(1)
    assert guest.namespace.fetch(SERVER, 80) == HOST
    assert guest.namespace.fetch(SERVER6, 80) == HOST6
    assert guest.namespace.ask(SERVER, 5000) == HOST


def test_guest_on_tap_is_reached_by_its_host_and_nobody_else(lab: Lab) -> None:
    guest = lab.guest(1)
    lab.servers.tcp(guest.namespace, "0.0.0.0", 2222)
    lab.servers.tcp(guest.namespace, guest.address6, 2222)
    assert guest.given.address == guest.address
    assert lab.host.fetch(guest.address, 2222) == guest.gateway
    assert lab.host.reaches(guest.address6, 2222)
    lab.world.run(f"ip route add {guest.given.network.address} via {HOST}", check=False)  # type: ignore[union-attr]
    lab.world.run(f"ip route add {guest.address}/32 via {HOST}; ip -6 route add {guest.address6}/128 via {HOST6}")
    assert not lab.world.reaches(guest.address, 2222)
    assert not lab.world.reaches(guest.address6, 2222)


@with_and_without_bridge_netfilter
def test_published_port_is_reached_where_it_was_asked_for_only(lab: Lab) -> None:
    ports = (PortForward(80, 8080), PortForward(80, 8081, HOST), PortForward(80, 8082, "0.0.0.0"))
    guest, sibling = lab.guest(1, ports=ports), lab.guest(2)
    lab.servers.tcp(guest.namespace, "0.0.0.0", 80)
    assert guest.given.ports == ports
    reached = {
        port: [lab.host.reaches("127.0.0.1", port), lab.host.reaches(HOST, port), lab.world.reaches(HOST, port)]
        for port in (8080, 8081, 8082)
    }
    assert reached == {8080: [True, False, False], 8081: [False, True, True], 8082: [True, True, True]}
    assert lab.world.fetch(HOST, 8082) == WORLD, "the guest sees who connects"
    assert not any(sibling.namespace.reaches(address, 8082) for address in (HOST, sibling.gateway, guest.address))


def test_published_udp_and_ipv6_ports_are_reached_where_they_were_asked_for_only(lab: Lab) -> None:
    ports = (
        PortForward(5000, 5000, protocol="udp"),
        PortForward(5000, 5001, HOST, "udp"),
        PortForward(80, 8080, HOST6),
        PortForward(80, 8081, "::1"),
        PortForward(80, 8082, "::"),
        PortForward(5000, 5002, "::", "udp"),
    )
    guest = lab.guest(1, ports=ports)
    for address in ("0.0.0.0", guest.address6):
        lab.servers.tcp(guest.namespace, address, 80)
        lab.servers.udp(guest.namespace, address, 5000)
    asks = {
        (5000, "hears"): [("host", "127.0.0.1"), ("host", HOST), ("world", HOST)],
        (5001, "hears"): [("host", "127.0.0.1"), ("host", HOST), ("world", HOST)],
        (8080, "reaches"): [("host", "::1"), ("host", HOST6), ("world", HOST6)],
        (8081, "reaches"): [("host", "::1"), ("host", HOST6), ("world", HOST6)],
        (8082, "reaches"): [("host", "::1"), ("host", HOST6), ("world", HOST6)],
        (5002, "hears"): [("host", "::1"), ("host", HOST6), ("world", HOST6)],
    }
    places = {"host": lab.host, "world": lab.world}
    reached = {
        port: [getattr(places[place], how)(address, port) for place, address in who]
        for (port, how), who in asks.items()
    }
    assert reached == {
        5000: [True, False, False],
        5001: [False, True, True],
        8080: [False, True, True],
        8081: [True, False, False],
        8082: [True, True, True],
        5002: [True, True, True],
    }
    assert lab.world.fetch(HOST6, 8080) == WORLD6, "the guest sees who connects"
    assert lab.world.ask(HOST, 5001) == WORLD
    lab.clean(make_vm(1, ports=ports))
    assert lab.ledgers[INSTALLATION].all() == []
    assert not lab.host.reaches("::1", 8081)


def test_port_of_a_guest_on_tap_on_which_nobody_listens_is_refused(lab: Lab) -> None:
    ports = (PortForward(80, 8080), PortForward(80, 8081, "::1"))
    lab.guest(1, ports=ports)
    with pytest.raises(ConnectionRefusedError):
        lab.host.fetch("127.0.0.1", 8080)
    with pytest.raises(ConnectionResetError):
        lab.host.fetch("::1", 8081)
    lab.clean(make_vm(1, ports=ports))


def test_published_port_works_for_a_guest_that_may_reach_nothing(lab: Lab) -> None:
    guest = lab.guest(1, egress="none", ports=(PortForward(80, 8080), PortForward(80, 8081, HOST)))
    lab.servers.tcp(guest.namespace, "0.0.0.0", 80)
    assert lab.host.reaches("127.0.0.1", 8080)
    assert lab.world.reaches(HOST, 8081)
    assert not guest.namespace.reaches(SERVER, 80)


def test_guest_has_the_mtu_of_the_way_out(lab: Lab) -> None:
    lab.host.run("ip link set up0 mtu 1420")
    given = lab.prepare(make_vm(1))
    assert given.network
    assert given.network.mtu == 1420
    lab.host.run(f"ip route replace default via {WORLD} mtu 1380")
    given = lab.prepare(make_vm(2))
    assert given.network
    assert given.network.mtu == 1380
    assert "mtu 1380" in lab.host.run(f"ip link show {tap_name(INSTALLATION, make_vm(2).id)}")


# -- what a guest may not --------------------------------------------------------------------------------


@with_and_without_bridge_netfilter
def test_guest_with_forged_addresses_is_not_heard(lab: Lab) -> None:
    guest, sibling = lab.guest(1), lab.guest(2)
    bridge_mac = lab.bridge_mac()

    def send(name: bytes, source_mac: str, kind: int, packet: Any) -> None:
        guest.namespace.send_frame(ethernet(bridge_mac, source_mac, kind, packet(name)))

    def v4(source: str) -> Any:
        return lambda name: ipv4_udp(source, SERVER, 5000, name)

    def v6(source: str) -> Any:
        return lambda name: ipv6_udp(source, SERVER6, 5000, name)

    send(b"sibling's address", guest.mac, 0x0800, v4(sibling.address))
    send(b"somebody's address", guest.mac, 0x0800, v4("203.0.113.7"))
    send(b"sibling's IPv6 address", guest.mac, 0x86DD, v6(sibling.address6))
    send(b"somebody's IPv6 address", guest.mac, 0x86DD, v6("2001:db8:5::5"))
    send(b"sibling's card", sibling.mac, 0x0800, v4(guest.address))
    send(b"sibling's card and address", sibling.mac, 0x0800, v4(sibling.address))
    send(b"somebody's card, IPv6", "02:00:00:00:00:01", 0x86DD, v6(guest.address6))
    send(b"own", guest.mac, 0x0800, v4(guest.address))
    send(b"own IPv6", guest.mac, 0x86DD, v6(guest.address6))
    eventually(lambda: {data for _, data in lab.servers.datagrams} >= {b"own", b"own IPv6"})
    assert sorted(data for _, data in lab.servers.datagrams) == [b"own", b"own IPv6"]


def test_guest_that_claims_a_siblings_address_gets_nothing_of_it(lab: Lab) -> None:
    guest, sibling = lab.guest(1), lab.guest(2)
    for one in (guest, sibling):
        lab.servers.tcp(one.namespace, "0.0.0.0", 2222)
        lab.servers.tcp(one.namespace, one.address6, 2222)
    assert lab.host.reaches(sibling.address, 2222)
    assert lab.host.reaches(sibling.address6, 2222)
    lab.servers.udp(lab.host, "0.0.0.0", 9000)
    bridge_mac = lab.bridge_mac()
    claims = [
        ethernet(bridge_mac, guest.mac, 0x0806, arp_reply(guest.mac, sibling.address, bridge_mac, guest.gateway)),
        ethernet(
            "33:33:00:00:00:01", guest.mac, 0x86DD,
            neighbour_advertisement(guest.address6, "ff02::1", sibling.address6, guest.mac),
        ),
    ]  # fmt: skip
    for flushed in (False, True):
        if flushed:  # then what the kernel was told about neighbours must do
            lab.host.run("nft flush ruleset")
        for claim in claims:
            guest.namespace.send_frame(claim)
        # What comes after the forged frames shows that those have been dealt with.
        assert guest.namespace.hears(guest.gateway, 9000) if flushed else guest.namespace.fetch(SERVER, 80)
        known = lab.host.run("ip neigh show").splitlines()
        assert not [line for line in known if guest.mac in line and sibling.address in line.split()]
        assert not [line for line in known if guest.mac in line and sibling.address6 in line.split()]
        assert lab.host.reaches(sibling.address, 2222)


@with_and_without_bridge_netfilter
def test_guest_does_not_reach_its_host(lab: Lab) -> None:
    guest = lab.guest(1, ports=(PortForward(80, 8080),))
    gateway6 = guest.given.network.gateway6  # type: ignore[union-attr]
    for address in ("0.0.0.0", HOST6, gateway6):
        lab.servers.tcp(lab.host, address, 9000)
    lab.servers.udp(lab.host, "0.0.0.0", 9000)
    assert lab.host.reaches(HOST, 9000)
    assert lab.host.reaches(gateway6, 9000)
    for address in (guest.gateway, HOST, gateway6, HOST6):
        assert not guest.namespace.reaches(address, 9000), address
    assert not guest.namespace.hears(guest.gateway, 9000)
    with pytest.raises(ConnectionRefusedError):  # an answer, not silence
        guest.namespace.fetch(guest.gateway, 9000)


@with_and_without_bridge_netfilter
def test_guest_does_not_reach_its_hosts_loopback_even_without_our_rules(lab: Lab) -> None:
    guest = lab.guest(1, ports=(PortForward(80, 8080),))
    lab.servers.udp(lab.host, "127.0.0.1", 9000)
    lab.servers.udp(lab.host, guest.gateway, 9001)
    bridge = bridge_name(INSTALLATION)
    assert lab.host.run(f"cat /proc/sys/net/ipv4/conf/{bridge}/route_localnet").strip() == "1"
    bridge_mac = lab.bridge_mac()

    def send(address: str, port: int, data: bytes) -> None:
        packet = ipv4_udp(guest.address, address, port, data)
        guest.namespace.send_frame(ethernet(bridge_mac, guest.mac, 0x0800, packet))

    send("127.0.0.1", 9000, b"through the rules")
    lab.host.run("nft flush ruleset")
    send("127.0.0.1", 9000, b"without rules")
    send(guest.gateway, 9001, b"to show that packets arrive")
    eventually(lambda: lab.servers.datagrams)
    assert [data for _, data in lab.servers.datagrams] == [b"to show that packets arrive"]


def test_loopback_is_not_routed_without_a_loopback_port(lab: Lab) -> None:
    switch = f"cat /proc/sys/net/ipv4/conf/{bridge_name(INSTALLATION)}/route_localnet"
    lab.guest(1, ports=(PortForward(80, 8080, HOST),))
    assert lab.host.run(switch).strip() == "0"
    published = make_vm(2, ports=(PortForward(80, 8081),))
    lab.prepare(published)
    assert lab.host.run(switch).strip() == "1"
    lab.clean(published)
    assert lab.host.run(switch).strip() == "0"


def test_loopback_port_without_its_guard_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("banger.network.loopback._BYTECODE", "1,0 0 0 0")  # as a kernel without cls_bpf
    with pytest.raises(BangerError) as caught:
        lab.prepare(make_vm(1, ports=(PortForward(80, 8080),)))
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "cls_bpf" in caught.value.hint
    switch = f"cat /proc/sys/net/ipv4/conf/{bridge_name(INSTALLATION)}/route_localnet"
    assert lab.host.run(switch).strip() == "0"


@with_and_without_bridge_netfilter
def test_guest_does_not_reach_a_sibling(lab: Lab) -> None:
    guest, sibling = lab.guest(1), lab.guest(2)
    lab.servers.tcp(sibling.namespace, "0.0.0.0", 80)
    lab.servers.tcp(sibling.namespace, sibling.address6, 80)
    lab.servers.udp(sibling.namespace, "0.0.0.0", 7000)
    assert lab.host.reaches(sibling.address, 80)
    assert lab.host.reaches(sibling.address6, 80)
    assert not guest.namespace.reaches(sibling.address, 80)
    assert not guest.namespace.reaches(sibling.address6, 80)
    # Through the router, and straight to its card: both with the guest's own addresses.
    bridge_mac = lab.bridge_mac()
    packet = ipv4_udp(guest.address, sibling.address, 7000, b"forged")
    for mac in (bridge_mac, sibling.mac, "ff:ff:ff:ff:ff:ff"):
        guest.namespace.send_frame(ethernet(mac, guest.mac, 0x0800, packet))
    assert lab.host.hears(sibling.address, 7000)
    assert [data for _, data in lab.servers.datagrams] == [b"?"]


# -- egress ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("egress", "reached"),
    [
        ("open", [SERVER, OTHER_SERVER, PRIVATE_SERVER, SERVER6]),
        ("public", [SERVER, OTHER_SERVER, SERVER6]),
        ("none", []),
        (f"allow={SERVER}", [SERVER]),
        (f"allow={SERVER6},198.51.100.16/28,198.51.100.20", [OTHER_SERVER, SERVER6]),
        ("allow=0.0.0.0/0", [SERVER, OTHER_SERVER, PRIVATE_SERVER]),
    ],
)
def test_egress_policy_decides_what_is_reached_and_never_the_metadata(
    lab: Lab, egress: str, reached: list[str]
) -> None:
    guest = lab.guest(1, egress=egress)
    lab.guest(2)
    everything = (SERVER, OTHER_SERVER, PRIVATE_SERVER, METADATA, SERVER6)
    assert [address for address in everything if guest.namespace.reaches(address, 80)] == reached


def test_allowed_names_are_reached_after_they_were_looked_up_and_survive_other_guests(lab: Lab) -> None:
    lab.resolver = Resolver(IPv4Address("127.0.0.1"), 5353, follows_names=True)
    vm = make_vm(1, egress="allow-names=server.example")
    guest = Guest(lab.stack, lab.host, lab.prepare(vm))
    assert not guest.namespace.reaches(SERVER, 80)
    with lab.host.entered():
        lab.network.add_allowed(vm.id, [SERVER, SERVER6], 300)
        lab.network.add_allowed(make_vm(3).id, [SERVER], 300)
    assert guest.namespace.reaches(SERVER, 80)
    assert guest.namespace.reaches(SERVER6, 80)
    assert not guest.namespace.reaches(OTHER_SERVER, 80)

    lab.guest(2)  # the rules are made anew
    assert guest.namespace.reaches(SERVER, 80)
    lab.network = lab.installation(INSTALLATION)  # and so they are after a restart
    lab.refresh()
    assert guest.namespace.reaches(SERVER, 80)


def test_allowed_name_is_held_as_long_as_its_last_answer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.resolver = Resolver(None, 5353, follows_names=True)
    vm = make_vm(1, egress="allow-names=server.example")
    guest = Guest(lab.stack, lab.host, lab.prepare(vm))
    monkeypatch.setattr(tap, "SHORTEST_ALLOWED_S", 1)
    with lab.host.entered():
        lab.network.add_allowed(vm.id, [SERVER, OTHER_SERVER], 1)
        lab.network.add_allowed(vm.id, [SERVER], 1000)
        held = dict(nft.elements(table_name(INSTALLATION), [vm.id])[f"names4_{vm.id}"])
    assert held[SERVER] > 990
    eventually(lambda: not guest.namespace.reaches(OTHER_SERVER, 80, 0.2))
    assert guest.namespace.reaches(SERVER, 80)


def test_allowed_names_without_a_resolver_that_follows_them_are_refused(lab: Lab) -> None:
    lab.resolver = Resolver(IPv4Address(WORLD))
    with pytest.raises(BangerError) as caught:
        lab.prepare(make_vm(1, egress="allow-names=server.example"))
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    lab.clean(make_vm(1))
    assert lab.objects() == []
    assert lab.ledgers[INSTALLATION].all() == []


@with_and_without_bridge_netfilter
@pytest.mark.parametrize(
    ("where", "port"), [("loopback", 5353), ("bridge", 5353), ("bridge", 53), ("world", 5353), ("world", 53)]
)
def test_questions_to_the_gateway_reach_the_resolver_and_nothing_else_does(lab: Lab, where: str, port: int) -> None:
    address = {"loopback": "127.0.0.1", "bridge": None, "world": WORLD}[where]
    lab.resolver = Resolver(IPv4Address(address) if address else None, port)
    guest, public = lab.guest(1), lab.guest(2, egress="public")
    silent = [lab.guest(3, egress="none"), lab.guest(4, egress=f"allow={SERVER}")]
    server = lab.world if where == "world" else lab.host
    lab.servers.udp(server, address or guest.gateway, port)
    lab.servers.tcp(server, address or guest.gateway, port)
    assert guest.given.network
    assert guest.given.network.nameserver == guest.gateway
    seen = HOST if where == "world" else guest.address
    assert guest.namespace.ask(guest.gateway, 53) == seen
    assert guest.namespace.fetch(guest.gateway, 53) == seen
    assert public.namespace.hears(public.gateway, 53)
    assert port == 53 or not guest.namespace.hears(guest.gateway, port)
    assert not guest.namespace.reaches(HOST, 53)
    assert not any(one.namespace.hears(one.gateway, 53, 0.3) for one in silent)
