"""Guests come and go one by one, and the packet filter is what it would be if it were made whole each time."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest
from pyroute2 import IPRoute

from banger.core.models import Vm
from banger.network import links, nft
from banger.network.names import table_name
from banger.network.resolver import Resolver
from tests.support.netlab import INSTALLATION, SERVER, Lab, make_vm, needs_taps

pytestmark = [pytest.mark.root, needs_taps]

TABLE = table_name(INSTALLATION)
POLICIES = ("open", "none", "public", f"allow={SERVER}", "allow-names=*.example.org")


def rules_of(lab: Lab) -> Counter[str]:
    """What the kernel has, in whatever order."""
    listed = lab.host.run(f"nft -s list table inet {TABLE}; nft -s list table bridge {TABLE}")
    return Counter(listed.replace(",", " ").split())


def made_whole(lab: Lab, *vms: Vm) -> Counter[str]:
    """The rules as a daemon makes them that has just begun."""
    with lab.host.entered():
        lab.installation(INSTALLATION).refresh(vms)
    return rules_of(lab)


def test_guests_that_come_and_go_one_by_one_leave_the_same_rules_as_made_whole(lab: Lab) -> None:
    lab.resolver = Resolver(None, 5354, follows_names=True)
    vms = [make_vm(number, egress=egress) for number, egress in enumerate(POLICIES, 1)]
    for vm in vms:
        lab.prepare(vm)
    lab.prepare(vms[2])  # tried again
    whole = rules_of(lab)
    assert whole == made_whole(lab, *vms)
    for vm in vms[::2]:
        lab.clean(vm)
    left = rules_of(lab)
    assert left == made_whole(lab, *vms[1::2])
    for vm in vms[::2]:
        lab.prepare(vm)
    assert rules_of(lab) == whole


def test_start_beside_others_changes_one_guest_and_nothing_else(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    vms = [make_vm(number) for number in range(1, 4)]
    for vm in vms[:2]:
        lab.prepare(vm)
    applied: list[str] = []
    monkeypatch.setattr(nft, "apply", lambda text, apply=nft.apply: (applied.append(text), apply(text)))
    lab.prepare(vms[2])
    lab.clean(vms[0])
    assert len(applied) == 2
    assert not any(f"vm_{vms[1].id}" in text or "delete table" in text for text in applied)


@pytest.mark.parametrize(
    "damage", ["flush ruleset", "delete map inet {table} egress4", "flush map bridge {table} frames"]
)
def test_start_or_stop_after_somebody_has_meddled_makes_the_rules_anew(lab: Lab, damage: str) -> None:
    vms = [make_vm(number) for number in range(1, 4)]
    for vm in vms:
        lab.prepare(vm)
    whole = rules_of(lab)
    for again in (lambda: lab.prepare(vms[2]), lambda: lab.refresh(*vms)):
        lab.host.run(f"nft flush chain inet {TABLE} from_guest; nft '{damage.format(table=TABLE)}'")
        again()
        lab.refresh(*vms)
        assert rules_of(lab) == whole
    lab.host.run("nft flush ruleset")
    lab.clean(vms[2])
    assert rules_of(lab) == made_whole(lab, *vms[:2])


def test_resolver_that_moves_reaches_guests_that_were_there_before(lab: Lab) -> None:
    lab.prepare(make_vm(1))
    lab.resolver = Resolver(IPv4Address("127.0.0.1"), 5354)
    lab.prepare(make_vm(2))
    assert rules_of(lab) == made_whole(lab, make_vm(1), make_vm(2))


def test_interfaces_are_those_that_another_library_reads(lab: Lab) -> None:
    lab.prepare(make_vm(1))
    lab.prepare(make_vm(2))
    with lab.host.entered(), IPRoute() as netlink:
        wanted = [
            (
                one["index"],
                one.get_attr("IFLA_IFNAME"),
                one.get_attr("IFLA_IFALIAS") or "",
                one.get_attr("IFLA_MTU"),
                one.get_attr("IFLA_MASTER") or 0,
            )
            for one in netlink.get_links()
        ]
        assert [(one.index, one.name, one.alias, one.mtu, one.master) for one in links.all_links()] == wanted
    assert len(wanted) == 5
