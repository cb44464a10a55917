"""The tap network for real: a host, the world beyond it and guests, each in a network namespace of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from banger.core.crashpoints import all_points
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import PortForward, Vm
from banger.core.ports import Contribution
from banger.host.cascade import run_all
from banger.network import coexistence, links, nft, tap
from banger.network.names import bridge_name, table_name, tap_name
from banger.network.resolver import Resolver
from banger.network.tap import TapNetwork, TapSettings
from tests.support.netlab import (
    Guest,
    MemoryLedger,
    Namespace,
    Servers,
    arp_reply,
    ethernet,
    ipv4_udp,
    ipv6_udp,
    make_vm,
    needs_taps,
    neighbour_advertisement,
    operation,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_taps]

INSTALLATION, OTHER_INSTALLATION = "0123456789ab", "ba9876543210"
HOST, HOST6 = "192.0.2.1", "2001:db8:1::1"
WORLD, WORLD6 = "192.0.2.254", "2001:db8:1::fe"
SERVER, SERVER6 = "198.51.100.10", "2001:db8:99::10"
OTHER_SERVER = "198.51.100.20"
PRIVATE_SERVER, METADATA = "10.255.255.9", "169.254.169.254"


class Lab:
    """A host with an uplink to a world of servers, and one installation on it."""

    def __init__(self, stack: ExitStack, directory: Path, *, bridge_netfilter: bool) -> None:
        self.stack, self._directory = stack, directory
        self.host, self.world = Namespace(stack), Namespace(stack)
        self.servers = Servers(stack)
        self.resolver: Resolver | None = None
        self._connect()
        self.host.run(f"sysctl -qw net.bridge.bridge-nf-call-iptables={int(bridge_netfilter)}", check=bridge_netfilter)
        self.ledgers = {INSTALLATION: MemoryLedger(), OTHER_INSTALLATION: MemoryLedger()}
        self.network = self.installation(INSTALLATION)

    def _connect(self) -> None:
        self.host.run(f"ip link add up0 type veth peer name eth0 netns {self.world.pid}; ip link set up0 up")
        self.world.run("ip link set eth0 up")
        self.host.run(
            f"ip addr add {HOST}/24 dev up0; ip addr add {HOST6}/64 dev up0 nodad;ip route add default via {WORLD}"
        )
        self.world.run(
            f"ip addr add {WORLD}/24 dev eth0; ip addr add {WORLD6}/64 dev eth0 nodad;"
            f"for one in {SERVER} {OTHER_SERVER} {PRIVATE_SERVER} {METADATA}; do ip addr add $one/32 dev lo; done;"
            f"ip addr add {SERVER6}/128 dev lo nodad"
        )
        self.host.run(f"ip -6 route add default via {WORLD6}")
        for address in (SERVER, OTHER_SERVER, PRIVATE_SERVER, METADATA, SERVER6):
            self.servers.tcp(self.world, address, 80)
        for address in (SERVER, SERVER6):
            self.servers.udp(self.world, address, 5000)

    def installation(self, installation_id: str, **settings: Any) -> TapNetwork:
        """A tap network with a ledger that a second one of the same id shares, as after a restart of the daemon."""
        return TapNetwork(
            installation_id,
            self._directory / f"{installation_id}.json",
            2222,
            self.ledgers[installation_id].all,
            lambda _, forwards: list(forwards),
            TapSettings(**settings),
            lambda: self.resolver,
        )

    def prepare(self, vm: Vm, network: TapNetwork | None = None, installation: str = INSTALLATION) -> Contribution:
        """As a VM's owner does it."""
        with self.host.entered():
            part = self.ledgers[installation].of_vm(vm.id)
            return (network or self.network).prepare(vm, None, part, operation())  # type: ignore[arg-type]

    def guest(self, number: int, **spec: Any) -> Guest:
        """A VM that runs."""
        return Guest(self.stack, self.host, self.prepare(make_vm(number, **spec)))

    def clean(self, *vms: Vm, network: TapNetwork | None = None, installation: str = INSTALLATION) -> None:
        """As a VM's owner does it after the VMM is gone."""
        for vm in vms:
            with self.host.entered():
                run_all((network or self.network).cleanup(vm, self.ledgers[installation].of_vm(vm.id)))

    def refresh(self, *vms: Vm) -> None:
        """The tick."""
        with self.host.entered():
            self.network.refresh(vms)

    def bridge_mac(self) -> str:
        """The card of the host as guests see it."""
        return self.host.run(f"ip -o link show {bridge_name(INSTALLATION)}").partition("link/ether ")[2].split()[0]

    def objects(self, network: TapNetwork | None = None) -> list[tuple[str, str, str]]:
        """What is on the host: kind, key, VM."""
        with self.host.entered():
            return [(one.kind, one.key, one.vm_id) for one in (network or self.network).host_objects()]


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The parameter: whether iptables see what passes the bridge, as Docker and Kubernetes like it."""
    with ExitStack() as stack:
        yield Lab(stack, tmp_path, bridge_netfilter=getattr(request, "param", False))


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
    assert guest.given.ssh_port == 2222
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
        assert lab.network.add_allowed(vm.id, [SERVER, SERVER6], 300) == 2
        assert lab.network.add_allowed(make_vm(3).id, [SERVER], 300) == 0
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
    assert lab.objects() == []
    assert lab.ledgers[INSTALLATION].all() == []


@with_and_without_bridge_netfilter
@pytest.mark.parametrize("where", ["loopback", "bridge", "world"])
def test_questions_to_the_gateway_reach_the_resolver_and_nothing_else_does(lab: Lab, where: str) -> None:
    address = {"loopback": "127.0.0.1", "bridge": None, "world": WORLD}[where]
    lab.resolver = Resolver(IPv4Address(address) if address else None, 5353)
    guest, public = lab.guest(1), lab.guest(2, egress="public")
    silent = [lab.guest(3, egress="none"), lab.guest(4, egress=f"allow={SERVER}")]
    server = lab.world if where == "world" else lab.host
    lab.servers.udp(server, address or guest.gateway, 5353)
    lab.servers.tcp(server, address or guest.gateway, 5353)
    assert guest.given.network
    assert guest.given.network.nameserver == guest.gateway
    seen = HOST if where == "world" else guest.address
    assert guest.namespace.ask(guest.gateway, 53) == seen
    assert guest.namespace.fetch(guest.gateway, 53) == seen
    assert public.namespace.hears(public.gateway, 53)
    assert where == "world" or not guest.namespace.hears(guest.gateway, 5353)
    assert not any(one.namespace.hears(one.gateway, 53, 0.3) for one in silent)


# -- coming and going ------------------------------------------------------------------------------------


def test_deleted_vms_leave_no_rule_and_no_object(lab: Lab) -> None:
    first, second = make_vm(1, ports=(PortForward(80, 8080),)), make_vm(2)
    guest = Guest(lab.stack, lab.host, lab.prepare(second))
    lab.prepare(first)
    taps = {("tap", tap_name(INSTALLATION, vm.id), vm.id) for vm in (first, second)}
    table = table_name(INSTALLATION)
    shared = {("bridge", bridge_name(INSTALLATION), ""), ("nft", f"inet {table}", ""), ("nft", f"bridge {table}", "")}
    assert set(lab.objects()) == taps | shared

    lab.clean(first)
    assert first.id not in lab.host.run("nft list ruleset")
    assert guest.namespace.reaches(SERVER, 80), "the other one goes on"
    assert {handle.vm_id for handle in lab.ledgers[INSTALLATION].all()} == {second.id}
    lab.clean(second, second, first)
    assert lab.objects() == []
    assert lab.ledgers[INSTALLATION].all() == []
    assert lab.host.run("nft list ruleset") == ""
    assert sorted(line.split()[1] for line in lab.host.run("ip -o link").splitlines()) == ["lo:", "up0@if2:"]


def test_vm_keeps_its_address_over_a_restart(lab: Lab) -> None:
    vm = make_vm(1)
    first = lab.prepare(vm)
    assert lab.prepare(vm) == first
    lab.clean(vm)
    assert lab.prepare(vm).address == first.address


def test_start_that_begins_again_with_other_routes_leaves_no_old_address(lab: Lab) -> None:
    first = lab.prepare(make_vm(1))
    lab.host.run(f"ip route add {first.address}/32 via {WORLD}")
    second = lab.prepare(make_vm(1))
    assert second.address != first.address
    assert [one.key for one in lab.ledgers[INSTALLATION].all() if one.kind == "address"] == [second.address]
    assert first.address not in lab.host.run(f"nft list ruleset; ip addr show dev {bridge_name(INSTALLATION)}")


def test_every_crash_leaves_only_what_the_ledger_knows(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    class DiedError(Exception):
        """As if the process had died."""

    points = [point for point in all_points() if point.startswith("tap.")]
    assert len(points) >= 8
    bystander = Guest(lab.stack, lab.host, lab.prepare(make_vm(2)))
    only_alone = ("tap.prepare:bridge-added", "tap.cleanup:bridge-gone")
    for point in sorted(points, key=only_alone.__contains__):
        alone = point in only_alone
        if alone:
            lab.clean(make_vm(2))
        hit = []

        def crash(name: str, at: str = point, hit: list[str] = hit) -> None:
            if name == at:
                hit.append(name)
                raise DiedError

        vm = make_vm(1, ports=(PortForward(80, 8080),))
        with monkeypatch.context() as patch:
            for module in (tap, links):
                patch.setattr(module, "crashpoint", crash)
            try:
                lab.prepare(vm)
                lab.clean(vm)
            except (DiedError, ExceptionGroup):
                pass
        assert hit, point
        held = {(one.kind, one.key) for one in lab.ledgers[INSTALLATION].all()}
        lost = [one for one in lab.objects() if one[0] == "tap" and one[:2] not in held]
        assert not lost, point
        lab.network = lab.installation(INSTALLATION)
        lab.refresh()
        lab.clean(vm)
        assert not [one for one in lab.objects() if one[2] == vm.id], point
        if alone:
            assert lab.objects() == [], point
        else:
            assert bystander.namespace.reaches(SERVER, 80), point


def test_refresh_puts_back_what_others_removed_and_changes_nothing_twice(lab: Lab) -> None:
    vm = make_vm(1, egress=f"allow={SERVER}", ports=(PortForward(80, 8080),))
    guest = Guest(lab.stack, lab.host, lab.prepare(vm))
    lab.servers.tcp(guest.namespace, "0.0.0.0", 80)
    bridge = bridge_name(INSTALLATION)
    for damage in (
        "nft flush ruleset",
        f"nft flush chain inet {table_name(INSTALLATION)} from_guest",
        f"nft delete table bridge {table_name(INSTALLATION)}",
        f"ip link set {guest.tap} nomaster",
        f"ip link set {bridge} down",
        f"ip link del {bridge}",
    ):
        lab.host.run(damage)
        lab.refresh(vm)
        assert guest.namespace.reaches(SERVER, 80), damage
        assert not guest.namespace.reaches(OTHER_SERVER, 80), damage
        assert lab.host.reaches("127.0.0.1", 8080), damage
    state = "nft -a list ruleset; ip link; bridge -d link; bridge fdb; ip addr; ip neigh show nud permanent"
    before = lab.host.run(state)
    lab.refresh(vm)
    assert lab.host.run(state) == before


def test_refresh_keeps_a_running_vm_whose_ledger_entry_was_lost(lab: Lab) -> None:
    vm = make_vm(1, egress=f"allow={SERVER}")
    guest = Guest(lab.stack, lab.host, lab.prepare(vm))
    lab.ledgers[INSTALLATION].entries.clear()
    lab.network = lab.installation(INSTALLATION)
    lab.refresh(replace(vm, address=guest.address))
    assert guest.namespace.reaches(SERVER, 80)
    assert not guest.namespace.reaches(OTHER_SERVER, 80)
    lab.refresh()
    assert [kind for kind, _, _ in lab.objects()] == ["tap"], "what nobody needs is gone but for the orphan"


def test_two_installations_leave_each_other_alone(lab: Lab) -> None:
    other = lab.installation(OTHER_INSTALLATION)
    guest = lab.guest(1)
    theirs = Guest(lab.stack, lab.host, lab.prepare(make_vm(1), other, OTHER_INSTALLATION))
    assert guest.address != theirs.address
    assert guest.namespace.reaches(SERVER, 80)
    assert theirs.namespace.reaches(SERVER, 80)
    lab.servers.tcp(guest.namespace, "0.0.0.0", 80)
    assert not theirs.namespace.reaches(guest.address, 80)
    assert not {key for _, key, _ in lab.objects()} & {key for _, key, _ in lab.objects(other)}

    table = f"nft -a list table inet {table_name(OTHER_INSTALLATION)}"
    before = lab.host.run(table)
    lab.clean(make_vm(1))
    assert lab.objects() == []
    with lab.host.entered():
        links.remove_tap(INSTALLATION, theirs.tap)
    assert lab.host.run(table) == before
    assert theirs.namespace.reaches(SERVER, 80)


def test_tap_of_another_installation_with_a_like_name_is_neither_taken_nor_removed(lab: Lab) -> None:
    name = tap_name(INSTALLATION, make_vm(1).id)
    alias = f"banger {INSTALLATION[:6]}ffffff {make_vm(1).id} 2026-01-01T00:00:00.000Z"
    lab.host.run(f"ip tuntap add {name} mode tap && ip link set {name} alias '{alias}'")
    with pytest.raises(BangerError) as caught:
        lab.prepare(make_vm(1))
    assert caught.value.kind is ErrorKind.CONFLICT
    lab.clean(make_vm(1))
    assert alias in lab.host.run(f"ip link show {name}")
    assert lab.objects() == []


def test_subnet_with_a_route_on_the_host_is_not_taken(lab: Lab) -> None:
    usual = lab.prepare(make_vm(1))
    lab.clean(make_vm(1))
    assert usual.network
    lab.host.run(f"ip route add {usual.address}/32 via {WORLD}; ip -6 route add {usual.network.address6} dev up0")
    lab.host.run(f"ip -6 route add {usual.network.address6.split('/')[0]}/128 dev up0", check=False)
    other = lab.prepare(make_vm(1))
    assert other.network
    assert other.network.gateway != usual.network.gateway
    assert other.network.gateway6 != usual.network.gateway6
    lab.clean(make_vm(1))
    network = lab.installation(INSTALLATION, subnet="192.0.2.0/25")
    with pytest.raises(BangerError) as caught:
        lab.prepare(make_vm(1), network)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert "192.0.2.0/24" in caught.value.cause


def test_host_that_learns_its_routes_from_advertisements_still_does(lab: Lab) -> None:
    assert lab.host.run("cat /proc/sys/net/ipv6/conf/up0/accept_ra").strip() == "1"
    lab.guest(1)
    assert lab.host.run("cat /proc/sys/net/ipv6/conf/up0/accept_ra").strip() == "2"
    with lab.host.entered():
        found = list(coexistence.find(INSTALLATION, lab.network._state_file))
    assert [one.name for one in found] == ["forwarding"]
    assert "net.ipv4.ip_forward" in found[0].problem
    assert "accept_ra" in found[0].problem


# -- other firewalls -------------------------------------------------------------------------------------

_DOCKER = "iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; iptables -P FORWARD DROP"
_UFW = (
    "iptables -N ufw-user-forward; iptables -A FORWARD -j ufw-user-forward; iptables -P FORWARD DROP;"
    "iptables -P INPUT DROP"
)
_OTHER = "nft 'table inet mine { chain passing { type filter hook forward priority 0; policy drop; }; }'"


def _firewall_names() -> Sequence[Any]:
    has_iptables = subprocess.run("iptables --version | grep -q nf_tables", shell=True, check=False).returncode == 0
    skip = pytest.mark.skipif(not has_iptables, reason="needs iptables on nftables")
    return [
        pytest.param("docker", _DOCKER, marks=skip),
        pytest.param("ufw", _UFW, marks=skip),
        pytest.param("firewall", _OTHER),
    ]


@pytest.mark.parametrize(("name", "setup"), _firewall_names())
def test_firewall_that_drops_is_found_and_its_remedy_helps(lab: Lab, name: str, setup: str) -> None:
    guest = lab.guest(1)
    lab.host.run(setup)
    assert not guest.namespace.reaches(SERVER, 80)
    with lab.host.entered():
        found = {one.name: one for one in coexistence.find(INSTALLATION, lab.network._state_file)}
    assert name in found
    if name == "ufw":  # not installed; what its commands do
        bridge = bridge_name(INSTALLATION)
        lab.host.run(f"for one in i o; do iptables -A ufw-user-forward -$one {bridge} -j ACCEPT; done")
    else:
        lab.host.run(found[name].remedy)
    assert guest.namespace.reaches(SERVER, 80)
    with lab.host.entered():
        assert name not in {one.name for one in coexistence.find(INSTALLATION, lab.network._state_file)}
