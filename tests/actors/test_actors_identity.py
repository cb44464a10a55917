"""Renewing the identity of a copied guest: nothing that repeats goes unnoticed, whichever item is broken."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from banger.actors import restore_hooks
from banger.actors.identity_items import RENEWING
from banger.actors.messages import DeleteVm
from banger.actors.vm_identity import renew_identity
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExitStatus
from banger.core.guest_identity import SeenIdentity
from banger.core.identity import CLOCK_TOLERANCE_NS, ITEMS, Renewal, RenewalEvent
from banger.core.models import Vm, VmState
from banger.core.operation import Operation
from banger.core.ports import GuestNetwork, VmLedger
from banger.core.random_reads import RandomReads
from banger.core.wire.vm_spec import VmSpec
from banger.guest.hostkey import HostKeyMaker
from tests.support.copied_guest import HOOKS, SAVED, CopiedGuest
from tests.support.fake_capability import FakeCapability
from tests.support.fake_guests import FakeGuests
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.owned_vms import create
from tests.support.saved_vms import copied_guests, fork, write
from tests.support.scripted_guest import Script, ScriptedProcess

if TYPE_CHECKING:
    from banger.actors.services import VmServices

NETWORK = GuestNetwork("10.1.0.7/24", "10.1.0.1", "10.1.0.1", "fd00::7/64", "fd00::1")
FORK = Renewal(
    RenewalEvent.FORK, "1" * 12, "child", "0" * 12, "parent", "child", bytes(range(32)), "02:00:00:00:00:07", NETWORK
)
#: The same VM as before, where it was.
SAME = replace(
    FORK,
    vm_id="0" * 12,
    name="parent",
    hostname="parent",
    mac=SAVED.mac,
    network=GuestNetwork("10.1.0.2/24", "10.1.0.1", "10.1.0.1", "fd00::2/64", "fd00::1"),
)


def renew(
    guest: CopiedGuest, renewal: Renewal = FORK, operation: Operation | None = None, reads: RandomReads | None = None
) -> SeenIdentity:
    guests = FakeGuests()
    guests.sessions = lambda _: guest  # type: ignore[assignment,return-value]
    services = SimpleNamespace(guests=guests, host_keys=HostKeyMaker(), random_reads=reads or RandomReads())
    vm = Vm(renewal.vm_id, renewal.name, VmSpec("debian"), VmState.RUNNING, clock.now())
    return renew_identity(cast("VmServices", services), vm, renewal, operation or Operation("vm.fork", renewal.name))


def failed(guest: CopiedGuest, renewal: Renewal = FORK) -> BangerError:
    with pytest.raises(BangerError) as caught:
        renew(guest, renewal)
    return caught.value


UNSEEN = ("random numbers", "services", "hooks")


@pytest.mark.parametrize("item", [item.name for item in ITEMS if item.name not in UNSEEN])
def test_item_that_the_guest_ignores_fails_the_renewal_by_name(item: str) -> None:
    error = failed(CopiedGuest(ignores=item))
    assert error.kind is ErrorKind.UNAVAILABLE
    assert error.message == f'VM "child" has not renewed its {item}'
    assert error.subject == "child"
    assert error.cause
    assert error.hint == "banger vm why child"


def test_random_numbers_that_two_copies_make_alike_fail_the_second_by_name() -> None:
    reads = RandomReads()
    renew(CopiedGuest(ignores="random numbers"), replace(FORK, name="first"), reads=reads)
    with pytest.raises(BangerError) as caught:
        renew(CopiedGuest(ignores="random numbers"), reads=reads)
    assert caught.value.message == 'VM "child" has not renewed its random numbers'
    assert caught.value.cause == 'the same as in VM "first"'


def test_copy_is_somebody_else_in_everything() -> None:
    guest, operation, reads = CopiedGuest(), Operation("vm.fork", "child"), RandomReads()
    first = renew(guest, operation=operation, reads=reads)
    second = renew(CopiedGuest(), reads=reads)
    for one, other in ((first, SAVED), (second, first)):
        assert one.machine_id != other.machine_id
        assert one.boot_id != other.boot_id
        assert one.sshd_keys["ssh_host_ed25519_key"] != other.sshd_keys["ssh_host_ed25519_key"]
        assert not set(one.random) & set(other.random)
    assert (first.hostname, first.vm_id, first.mac) == ("child", "1" * 12, "02:00:00:00:00:07")
    assert first.host_key != SAVED.host_key
    assert "ssh_host_dsa_key" not in first.sshd_keys
    assert [step.name for step in operation.steps] == [
        "ask who the guest was",
        *(RENEWING[item].step for item in ITEMS),
        "verify identity",
    ]
    assert guest.asked[:3] == ["identity", "random numbers", "clock"]
    assert guest.asked[-2:] == ["hooks", "identity"]


@pytest.mark.parametrize(
    ("event", "kept"),
    [
        (RenewalEvent.REWIND, {"hostname", "machine_id", "vm_id", "host_key", "sshd_keys", "mac", "addresses"}),
        (RenewalEvent.WAKE, {"hostname", "machine_id", "vm_id", "host_key", "sshd_keys", "mac", "addresses", "boot_id", "seeds"}),
    ],
)  # fmt: skip
def test_same_vm_keeps_who_it_is_and_renews_what_must_not_repeat(event: RenewalEvent, kept: set[str]) -> None:
    guest = CopiedGuest()
    seen = renew(guest, replace(SAME, event=event))
    changing = {"hostname", "machine_id", "vm_id", "host_key", "sshd_keys", "mac", "addresses", "boot_id", "seeds"}
    assert {name for name in changing if getattr(seen, name) == getattr(SAVED, name)} == kept
    assert guest.behind_ns < CLOCK_TOLERANCE_NS
    assert "random numbers" in guest.asked


@pytest.mark.parametrize("event", [RenewalEvent.REWIND, RenewalEvent.WAKE])
def test_same_vm_on_another_network_gets_its_addresses(event: RenewalEvent) -> None:
    assert renew(CopiedGuest(), replace(SAME, event=event, network=NETWORK)).addresses[0] == "10.1.0.7/24"


def test_guest_without_machine_id_or_ipv6_gets_none() -> None:
    saved = replace(SAVED, machine_id="", has_ipv6=False, addresses=("10.1.0.2/24",), gateways=("10.1.0.1",))
    guest = CopiedGuest(saved=saved)
    guest.ignores = "machine-id"
    network = replace(NETWORK, address6="", gateway6="")
    assert renew(guest, replace(FORK, network=network)).machine_id == ""


def test_guest_without_a_card_of_its_own_is_left_alone_there() -> None:
    guest = CopiedGuest(saved=replace(SAVED, card="", mac="", addresses=(), gateways=()))
    renew(guest, replace(FORK, mac="", network=None))
    assert "network card" not in guest.asked


def test_seed_that_the_guest_has_written_since_is_a_new_one() -> None:
    class Booting(CopiedGuest):
        async def forget_seeds(self) -> None:
            await super().forget_seeds()
            self.now = replace(self.now, seeds=dict.fromkeys(SAVED.seeds, "13:2.5"))

    assert renew(Booting()).seeds.keys() == SAVED.seeds.keys()


def test_what_the_guest_refuses_is_told_with_the_item_and_its_own_words() -> None:
    class Refusing(CopiedGuest):
        async def forget_seeds(self) -> None:
            raise BangerError(ErrorKind.DENIED, "the guest cannot remove its random seeds", cause="read-only")

    error = failed(Refusing())
    assert error.kind is ErrorKind.UNAVAILABLE
    assert error.message == 'VM "child" cannot renew its random seeds'
    assert error.cause == "the guest cannot remove its random seeds: read-only"


@pytest.mark.parametrize(
    ("saved", "event", "told"),
    [
        (replace(SAVED, sshd_keys={}), RenewalEvent.FORK, 0),
        (SAVED, RenewalEvent.FORK, 1),
        (replace(SAVED, sshd_keys={}, has_systemd=True), RenewalEvent.FORK, 1),
        (replace(SAVED, has_systemd=True), RenewalEvent.REWIND, 1),
        (SAVED, RenewalEvent.REWIND, 0),
        (replace(SAVED, has_systemd=True), RenewalEvent.WAKE, 0),
    ],
)
def test_services_that_remember_who_the_machine_was_are_told(
    saved: SeenIdentity, event: RenewalEvent, told: int
) -> None:
    guest = CopiedGuest(saved=saved)
    renew(guest, replace(FORK if event is RenewalEvent.FORK else SAME, event=event))
    assert len(guest.ran) == told


def test_copy_is_held_before_its_machine_starts_until_it_is_verified(tmp_path: Path, vmm: FakeVmm) -> None:
    events: list[tuple[str, bool]] = []

    class Watching(FakeCapability):
        def hold(self, vm: Vm, ledger: VmLedger) -> None:
            events.append(("hold", vm.id in copies))  # nobody has asked the guest anything
            super().hold(vm, ledger)

        def started(self, vm: Vm, ledger: VmLedger) -> None:
            if vm.id in self.held:
                events.append(("started", copies[vm.id].asked[-2:] == ["hooks", "identity"]))
            super().started(vm, ledger)

    (tmp_path / "place").mkdir()
    capability = Watching("fake", tmp_path / "place")
    world = World(tmp_path / "home", vmm, capabilities=(capability,))
    copies = copied_guests(world)
    vm = create(world, start=True)
    write(world, vm, "first")
    fork(world, vm, "one")
    assert events == [("hold", False), ("started", True)]
    assert capability.held == set()
    for one in world.store.vms.all():
        world.do(DeleteVm(one.id, one.name, force=True))
    world.stop()


# -- hooks -------------------------------------------------------------------------------------------------


def test_hooks_run_once_each_in_order_and_know_what_happened() -> None:
    guest = CopiedGuest()
    for name in ("20-second", "10-first", ".hidden", "old~"):
        guest.hooks[name] = _ends(0)
    guest.hooks["README"] = None
    guest.masked = ["15-masked"]
    renew(guest)
    hooks = [request for request in guest.ran if request.argv[0].startswith(HOOKS)]
    assert [request.argv for request in hooks] == [(f"{HOOKS}/10-first",), (f"{HOOKS}/20-second",)]
    assert set(hooks[0].env) == {
        "BANGER_EVENT=fork", f"BANGER_VM_ID={'1' * 12}", "BANGER_VM_NAME=child", f"BANGER_OLD_VM_ID={'0' * 12}",
        "BANGER_OLD_VM_NAME=parent",
    }  # fmt: skip
    assert hooks[0].user == "root"


def test_hook_that_fails_is_named_with_its_words_and_the_next_does_not_run() -> None:
    guest = CopiedGuest()
    guest.hooks = {"10-app": _ends(3, b"no licence\n"), "20-next": _ends(0)}
    error = failed(guest)
    assert error.kind is ErrorKind.UNAVAILABLE
    assert error.message == f'the hook "{HOOKS}/10-app" failed in VM "child"'
    assert error.cause == "exit code 3: no licence"
    assert f"{HOOKS}/10-app" in error.hint
    assert [request.argv[0] for request in guest.ran if request.argv[0].startswith(HOOKS)] == [f"{HOOKS}/10-app"]


def test_hook_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_hooks, "HOOK_LIMIT_S", 0.05)
    guest = CopiedGuest()

    async def forever(process: ScriptedProcess) -> ExitStatus:
        await asyncio.Event().wait()
        return ExitStatus(0)

    guest.hooks = {"10-app": forever}
    error = failed(guest)
    assert error.kind is ErrorKind.TIMEOUT
    assert error.cause == "it did not end within 0.05 s"


def test_guest_that_has_hooks_without_end_is_not_listened_to() -> None:
    guest = CopiedGuest()
    guest.hooks = {str(number): None for number in range(5000)}
    assert failed(guest).message == 'VM "child" cannot renew its hooks'


def test_guest_that_sets_its_clock_late_sets_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets little of its processor: what it was told is past by then, the first two times."""
    moment = [clock.unix_ns()]
    monkeypatch.setattr(clock, "unix_ns", lambda: moment[0])
    delays = [93_000_000_000, 700_000_000, 1_000_000]

    class Starved(CopiedGuest):
        async def set_clock(self, unix_ns: int) -> int:
            moment[0] += delays.pop(0)
            return await super().set_clock(unix_ns)

    renew(Starved())
    assert delays == []


def test_renewal_that_nobody_wants_any_more_ends_with_the_item_under_way() -> None:
    operation = Operation("vm.fork", "child")

    class Cancelling(CopiedGuest):
        async def set_clock(self, unix_ns: int) -> int:
            operation.hurry("stopped by the user")
            return await super().set_clock(unix_ns)

    guest = Cancelling()
    with pytest.raises(BangerError) as caught:
        renew(guest, operation=operation)
    assert caught.value.kind is ErrorKind.CANCELLED
    assert guest.asked == ["identity", "random numbers", "clock"]


def _ends(code: int, words: bytes = b"") -> Script:
    async def script(process: ScriptedProcess) -> ExitStatus:
        process.say(words)
        return ExitStatus(code)

    return script
