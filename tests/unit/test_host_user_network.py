"""QEMU's own network stack: what a VM gets of it, and who has to ask for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm
from banger.core.operation import Operation
from banger.core.ports import Contribution, UserNic
from banger.core.progress import EventKind
from banger.core.wire.vm_checks import check_spec
from banger.core.wire.vm_spec import VmSpec
from banger.forwarding.doorbells import Doorbells
from banger.forwarding.forwarders import Forwarders, Reach
from banger.forwarding.publisher import Publisher
from banger.host.user_network import UserNetwork
from tests.support.netlab import MemoryLedger, make_vm


def reach(vm: Vm) -> Reach:
    return Reach(Path("/nowhere"), 0, Path("/nowhere"))


MISSING = "pasta is not installed: apt-get install passt"


def started(network: str, obstacle: Callable[[], str] = lambda: MISSING, **spec: str) -> tuple[Contribution, list[str]]:
    """What a start gets, and what it is told."""
    vm, operation = make_vm(1, network, **spec), Operation("vm.start", "vm1")
    notes: list[str] = []
    operation.subscribe(lambda event: notes.append(event.message) if event.kind is EventKind.NOTE else None)
    stack = UserNetwork(Publisher(Forwarders("0123456789ab", reach), lambda _: {}, Doorbells(lambda _: None)), obstacle)
    assert stack.applies(vm)
    return stack.prepare(vm, None, MemoryLedger().of_vm(vm.id), operation), notes  # type: ignore[arg-type]


def is_open(given: Contribution) -> bool:
    assert given.network is not None
    return given.devices == (UserNic(),) and bool(given.network.gateway)


def is_shut_off(given: Contribution) -> bool:
    assert given.network is not None
    return not given.devices and not given.network.gateway and not given.network.nameserver


def test_vm_of_the_network_user_where_that_is_missing_is_shut_off_and_told_why() -> None:
    given, notes = started("user")
    assert is_shut_off(given)
    assert (given.network_name, given.network_reason) == ("none", MISSING)
    (note,) = notes
    assert note.startswith(f"vm1 has no network: {MISSING}")
    assert "--egress open" in note


def test_vm_that_may_reach_everything_is_on_slirp_where_the_network_user_is_missing_and_told_what_that_means() -> None:
    given, notes = started("user", egress="open")
    assert is_open(given)
    assert (given.network_name, given.network_reason) == ("slirp", MISSING)
    (note,) = notes
    assert "this host's own services" in note
    assert MISSING in note


@pytest.mark.parametrize("egress", ["allow=192.0.2.0/24", "allow-names=example.org"])
def test_policy_that_the_stack_cannot_hold_ends_the_start_with_both_ways_on(egress: str) -> None:
    with pytest.raises(BangerError) as caught:
        started("user", egress=egress)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.cause == "pasta is not installed"
    assert "apt-get install passt; or --egress open" in caught.value.hint


def test_policy_is_never_given_up_without_a_word_although_what_was_in_the_way_is_gone_by_then() -> None:
    obstacles = [MISSING, ""]
    with pytest.raises(BangerError, match="cannot have"):
        started("user", lambda: obstacles.pop(0), egress="allow=192.0.2.0/24")


def test_network_user_that_can_be_had_is_not_this_stack() -> None:
    stack = UserNetwork(
        Publisher(Forwarders("0123456789ab", reach), lambda _: {}, Doorbells(lambda _: None)), lambda: ""
    )
    assert not stack.applies(make_vm(1, "user"))
    assert stack.applies(make_vm(1, "none"))


def test_vm_that_runs_stays_on_the_stack_that_it_was_started_on() -> None:
    stack = UserNetwork(
        Publisher(Forwarders("0123456789ab", reach), lambda _: {}, Doorbells(lambda _: None)), lambda: ""
    )
    assert stack.applies(replace(make_vm(1, "user"), network="slirp"))
    assert not UserNetwork(stack._publisher, lambda: MISSING).applies(replace(make_vm(1, "user"), network="user"))


def test_network_none_is_shut_off_without_a_word() -> None:
    given, notes = started("none")
    assert is_shut_off(given)
    assert notes == []


def test_network_slirp_is_open_and_says_so() -> None:
    given, notes = started("slirp", egress="open")
    assert is_open(given)
    assert (given.network_name, given.network_reason) == ("slirp", "")
    assert "this host's own services" in notes[0]


@pytest.mark.parametrize(
    ("network", "egress"),
    [("user", "public"), ("user", "allow=192.0.2.1"), ("tap", "none"), ("slirp", "open"), ("none", "public")],
)
def test_policy_that_a_network_holds_is_taken(network: str, egress: str) -> None:
    check_spec(VmSpec("debian", network=network, egress=egress, cpus=1, memory_mib=512, disk_mib=1024))


@pytest.mark.parametrize(
    ("network", "egress"),
    [("slirp", "public"), ("slirp", "none"), ("slirp", "allow=192.0.2.1"), ("none", "allow-names=example.org")],
)
def test_policy_that_nobody_would_enforce_is_refused(network: str, egress: str) -> None:
    with pytest.raises(BangerError) as caught:
        check_spec(VmSpec("debian", network=network, egress=egress, cpus=1, memory_mib=512, disk_mib=1024))
    assert caught.value.kind is ErrorKind.USAGE
    assert "--network user" in caught.value.hint
