"""What of a guest is renewed after it was started from a saved machine, in which order, and how that is verified. Pure.

A saved machine may be started any number of times, so what must not repeat is in the memory and on the disk of all of
them. Which of it is renewed follows from the kind of start (one from a template is as one from a snapshot):

==================== ============== ======================================= ==========
item                 fork, restore  rewind                                  wake
==================== ============== ======================================= ==========
random numbers       renewed        renewed                                 renewed
clock                renewed        renewed                                 renewed
names, ids, keys     renewed        kept: it is the same VM                 kept
boot id              renewed        renewed: what was said under it is      kept, as
                                    not what will be                        after sleep
random-seed files    removed        removed: the disk has them again        kept
network card         renewed        renewed if it has other addresses now   as rewind
services, hooks      told; run      told; run                               run
==================== ============== ======================================= ==========
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from banger.core.guest_identity import SeenIdentity
from banger.core.ports.guest_network import GuestNetwork

#: How wrong a guest's clock may be, in nanoseconds.
CLOCK_TOLERANCE_NS = 500_000_000


class RenewalEvent(StrEnum):
    """How a guest was started from a saved machine: the value of ``BANGER_EVENT`` for its hooks."""

    FORK = "fork"  # another VM, from one that goes on
    RESTORE = "restore"  # another VM, from a snapshot
    TEMPLATE = "template"  # another VM, from one that had booted and that nobody had used
    REWIND = "rewind"  # the same VM, back where it was
    WAKE = "wake"  # the same VM, where it was


_ANOTHER_VM = frozenset({RenewalEvent.FORK, RenewalEvent.RESTORE, RenewalEvent.TEMPLATE})
_REPEATED = _ANOTHER_VM | {RenewalEvent.REWIND}
_ALL = frozenset(RenewalEvent)


@dataclass(frozen=True, slots=True)
class Renewal:
    """One start from a saved machine.

    Attributes:
        vm_id, name: of the VM that starts.
        saved_vm_id, saved_name: of the VM that was saved.
        hostname: what the guest is to call itself.
        host_key_seed: 32 bytes, of banger's ssh server.
        mac: of its card on a tap; empty if it has none, or if no other machine meets it.
        network: the addresses behind that card.
    """

    event: RenewalEvent
    vm_id: str
    name: str
    saved_vm_id: str
    saved_name: str
    hostname: str
    host_key_seed: bytes
    mac: str = ""
    network: GuestNetwork | None = None

    def environment(self) -> tuple[str, ...]:
        """What hooks are told."""
        return (
            f"BANGER_EVENT={self.event.value}",
            f"BANGER_VM_ID={self.vm_id}",
            f"BANGER_VM_NAME={self.name}",
            f"BANGER_OLD_VM_ID={self.saved_vm_id}",
            f"BANGER_OLD_VM_NAME={self.saved_name}",
        )


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """What a guest is given.

    Attributes:
        machine_id: empty for a guest that has none.
        host_key: public, as in :class:`SeenIdentity`.
        sshd_keys: names to public keys, of those that the image has.
        network: addresses of the card ``mac``; None if they stay what they are.
    """

    vm_id: str = ""
    hostname: str = ""
    machine_id: str = ""
    boot_id: str = ""
    host_key: str = ""
    sshd_keys: Mapping[str, str] = field(default_factory=dict)
    mac: str = ""
    network: GuestNetwork | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a renewal is judged by.

    Attributes:
        wanted: what the guest was given.
        saved: what it said before.
        seen: what it says now.
        asked_ns, answered_ns: this host's time before and after it was asked, nanoseconds since 1970.
        repeats: another VM whose kernel has made one of the same random numbers; empty if none has.
    """

    wanted: NewIdentity
    saved: SeenIdentity
    seen: SeenIdentity
    asked_ns: int
    answered_ns: int
    repeats: str = ""


@dataclass(frozen=True, slots=True)
class IdentityItem:
    """One thing that is renewed.

    Attributes:
        name: as it is called in steps and errors.
        events: the kinds of start that renew it.
        fault: what is wrong with it, in words; empty if it was renewed.
    """

    name: str
    events: frozenset[RenewalEvent]
    fault: Callable[[Inspection], str]


def network_changes(renewal: Renewal, saved: SeenIdentity) -> bool:
    """A guest's card is to have another MAC, or other addresses, than it has."""
    if renewal.network is None:
        return False
    has_other_mac = bool(renewal.mac) and renewal.mac != saved.mac
    return has_other_mac or bool(_wrong_addresses(renewal.network, saved))


def _randomness(look: Inspection) -> str:
    made = look.seen.random
    if not made:
        return "the guest tells none"
    if len(set(made)) < len(made):
        return "the same one twice"
    if set(made) & set(look.saved.random):
        return "the same as when it was saved"
    return f'the same as in VM "{look.repeats}"' if look.repeats else ""


def _clock(look: Inspection) -> str:
    told = look.seen.clock_ns
    behind_ns, ahead_ns = look.asked_ns - told, told - look.answered_ns
    if behind_ns > CLOCK_TOLERANCE_NS:
        return f"it is {behind_ns / 1e9:.1f} s behind"
    return f"it is {ahead_ns / 1e9:.1f} s ahead" if ahead_ns > CLOCK_TOLERANCE_NS else ""


def _hostname(look: Inspection) -> str:
    seen, wanted = look.seen, look.wanted.hostname
    return _differs(seen.hostname, wanted) or _differs(seen.hostname_file, wanted, " in /etc/hostname")


def _machine_id(look: Inspection) -> str:
    return _differs(look.seen.machine_id, look.wanted.machine_id)


def _boot_id(look: Inspection) -> str:
    return _differs(look.seen.boot_id, look.wanted.boot_id)


def _host_key(look: Inspection) -> str:
    if look.seen.host_key != look.wanted.host_key:
        return "banger's ssh server has another key"
    return "banger's ssh server goes on with its old key" if look.seen.has_ssh_server else ""


def _sshd_keys(look: Inspection) -> str:
    for name in look.saved.sshd_keys:
        if look.seen.sshd_keys.get(name) != look.wanted.sshd_keys.get(name):
            return f"/etc/ssh/{name} is another one"
    return ""


def _seeds(look: Inspection) -> str:
    """What has been written since was made of new random numbers: those are renewed first."""
    old = [path for path, stamp in look.seen.seeds.items() if look.saved.seeds.get(path) == stamp]
    return f"{old[0]} is still there" if old else ""


def _vm_id(look: Inspection) -> str:
    return _differs(look.seen.vm_id, look.wanted.vm_id)


def _network(look: Inspection) -> str:
    wanted, seen = look.wanted, look.seen
    if wanted.network is None:
        return ""
    if wanted.mac and seen.mac != wanted.mac:
        return _differs(seen.mac, wanted.mac)
    return _wrong_addresses(wanted.network, seen) or ("" if seen.is_up else f"{seen.card} is down")


def _wrong_addresses(network: GuestNetwork, seen: SeenIdentity) -> str:
    """Of a card, besides those that its kernel makes of its MAC."""
    given = [address for address in seen.addresses if not address.startswith("fe80:")]
    six = seen.has_ipv6
    wanted = [network.address, *([network.address6] if network.address6 and six else [])]
    if sorted(given) != sorted(wanted):
        return _differs(" ".join(given), " ".join(wanted))
    gateways = [network.gateway, network.gateway6 if six else ""]
    missing = [gateway for gateway in gateways if gateway and gateway not in seen.gateways]
    return f"no route by {missing[0]}" if missing else ""


def _unseen(look: Inspection) -> str:  # noqa: ARG001  # how it went is known when it has run
    return ""


def _differs(seen: str, wanted: str, where: str = "") -> str:
    return "" if seen == wanted else f'it is "{seen}"{where}, not "{wanted}"'


RANDOM_NUMBERS = IdentityItem("random numbers", _ALL, _randomness)
CLOCK = IdentityItem("clock", _ALL, _clock)
HOSTNAME = IdentityItem("host name", _ANOTHER_VM, _hostname)
MACHINE_ID = IdentityItem("machine-id", _ANOTHER_VM, _machine_id)
BOOT_ID = IdentityItem("boot id", _REPEATED, _boot_id)
HOST_KEY = IdentityItem("ssh host key", _ANOTHER_VM, _host_key)
SSHD_KEYS = IdentityItem("host keys of sshd", _ANOTHER_VM, _sshd_keys)
SEEDS = IdentityItem("random seeds", _REPEATED, _seeds)
NETWORK = IdentityItem("network card", _ALL, _network)
VM_ID = IdentityItem("VM id", _ANOTHER_VM, _vm_id)
#: Those that remember what they have read when they started.
SERVICES = IdentityItem("services", _REPEATED, _unseen)
HOOKS = IdentityItem("hooks", _ALL, _unseen)

#: In this order.
ITEMS: Sequence[IdentityItem] = (
    RANDOM_NUMBERS,
    CLOCK,
    HOSTNAME,
    MACHINE_ID,
    BOOT_ID,
    HOST_KEY,
    SSHD_KEYS,
    SEEDS,
    NETWORK,
    VM_ID,
    SERVICES,
    HOOKS,
)


def items_of(event: RenewalEvent) -> tuple[IdentityItem, ...]:
    """What a start of that kind renews, in order."""
    return tuple(item for item in ITEMS if event in item.events)


def first_fault(event: RenewalEvent, look: Inspection) -> tuple[IdentityItem, str] | None:
    """The first item that was not renewed as it should be, and what is wrong with it; None if all were."""
    found = ((item, item.fault(look)) for item in items_of(event))
    return next(((item, words) for item, words in found if words), None)
