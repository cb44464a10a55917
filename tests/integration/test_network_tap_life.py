"""How the tap network comes and goes: deletes, crashes, repairs, other installations, other firewalls."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from banger.core.crashpoints import all_points
from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.port_forward import PortForward
from banger.network import coexistence, links, tap
from banger.network.names import bridge_name, table_name, tap_name
from tests.support.netlab import (
    INSTALLATION,
    OTHER_INSTALLATION,
    OTHER_SERVER,
    SERVER,
    WORLD,
    Guest,
    Lab,
    address_of,
    make_vm,
    needs_taps,
)

pytestmark = [pytest.mark.root, needs_taps]


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
    assert address_of(lab.prepare(vm)) == address_of(first)


def test_copy_that_is_held_meets_nobody_until_it_has_started(lab: Lab) -> None:
    vm, sibling = make_vm(1), lab.guest(2)
    guest, ledger = lab.joined(vm), lab.ledgers[INSTALLATION].of_vm(vm.id)
    with lab.host.entered():
        lab.network.hold(vm, ledger)
        lab.network.hold(vm, ledger)
    lab.refresh(vm)
    assert not guest.namespace.reaches(SERVER, 80), "the tick does not put it up either"
    assert not lab.host.reaches(guest.address, 22)
    assert sibling.namespace.reaches(SERVER, 80)
    with lab.host.entered():
        lab.network.started(vm, ledger)
    assert guest.namespace.reaches(SERVER, 80)
    lab.refresh(vm)
    lab.clean(vm)
    assert tap_name(INSTALLATION, vm.id) not in lab.host.run("ip -o link")


def test_vms_that_start_and_end_at_once_get_addresses_of_their_own_and_leave_nothing(lab: Lab) -> None:
    vms = [make_vm(number) for number in range(1, 9)]
    with ThreadPoolExecutor(len(vms)) as threads:
        given = list(threads.map(lab.prepare, vms))
        assert len({address_of(one) for one in given}) == len(vms)
        assert len([one for one in lab.objects() if one[0] == "tap"]) == len(vms)
        list(threads.map(lab.clean, vms))
    assert lab.objects() == []
    assert lab.ledgers[INSTALLATION].all() == []


def test_start_that_begins_again_with_other_routes_leaves_no_old_address(lab: Lab) -> None:
    first = lab.prepare(make_vm(1))
    lab.host.run(f"ip route add {address_of(first)}/32 via {WORLD}")
    second = lab.prepare(make_vm(1))
    assert address_of(second) != address_of(first)
    assert [one.key for one in lab.ledgers[INSTALLATION].all() if one.kind == "address"] == [address_of(second)]
    assert address_of(first) not in lab.host.run(f"nft list ruleset; ip addr show dev {bridge_name(INSTALLATION)}")


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
        # The kernel takes up to a second until a bridge that has got its first carrier sends.
        assert guest.namespace.reaches(SERVER, 80, 5), damage
        assert not guest.namespace.reaches(OTHER_SERVER, 80), damage
        assert lab.host.reaches("127.0.0.1", 8080), damage
    # Not what the kernel itself does after the bridge came up anew.
    state = "nft -a list ruleset; ip -br -4 addr | cut -c1-16,30-; bridge fdb; ip neigh show nud permanent | sort"
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
    lab.host.run(f"ip route add {address_of(usual)}/32 via {WORLD}; ip -6 route add {usual.network.address6} dev up0")
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
        found = list(coexistence.find(INSTALLATION, lab.state_file))
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
        found = {one.name: one for one in coexistence.find(INSTALLATION, lab.state_file)}
    assert name in found
    if name == "ufw":  # not installed; what its commands do
        bridge = bridge_name(INSTALLATION)
        lab.host.run(f"for one in i o; do iptables -A ufw-user-forward -$one {bridge} -j ACCEPT; done")
    else:
        lab.host.run(found[name].remedy)
    assert guest.namespace.reaches(SERVER, 80)
    with lab.host.entered():
        assert name not in {one.name for one in coexistence.find(INSTALLATION, lab.state_file)}
