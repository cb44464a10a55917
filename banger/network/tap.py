"""The networks ``tap`` and ``user``: a capability that gives a VM a card on a bridge of this installation.

They differ in the place where that bridge is (:mod:`banger.network.place`), and in nothing else.

All of it follows from the ledger: the addresses, the rules and which of them are still needed. What is shared by all
VMs (bridge, rules, allotting addresses) is changed by one thread at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Vm
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import (
    Contribution,
    DeviceKind,
    GuestNetwork,
    Handle,
    HostObject,
    Mount,
    TapNic,
    VmLedger,
)
from banger.core.wire.port_forward import PortForward
from banger.forwarding.host_ports import has_callers
from banger.forwarding.publisher import PORT_KIND, Publisher
from banger.network import links, nft
from banger.network.addresses import Plan, choose_plan
from banger.network.guests import ADDRESS_KIND, TAP_KIND, Guest, guests_in
from banger.network.loopback import guard, route_loopback
from banger.network.names import bridge_name, table_name
from banger.network.objects import host_objects
from banger.network.packet_filter import PacketFilter
from banger.network.place import Place
from banger.network.resolver import Resolver, host_resolver
from banger.network.rules import Ruleset
from banger.network.sysctl import has_ipv6

#: What a name stands for stays allowed for at least so long: who has just asked must have time to connect.
SHORTEST_ALLOWED_S = 60
LONGEST_ALLOWED_S = 86400


@dataclass(frozen=True, slots=True)
class TapSettings:
    """What the configuration says about taps.

    Attributes:
        subnet: the key ``network.subnet``; empty to choose.
        ipv6: guests get an IPv6 address too, if the host has IPv6.
        vmm_uid: the user that VMMs run as, who may open the taps.
    """

    subnet: str = ""
    ipv6: bool = True
    vmm_uid: int = 0


class TapNetwork:
    """Implements :class:`banger.core.ports.Capability`."""

    def __init__(
        self,
        installation_id: str,
        place: Place,
        handles: Callable[[], Sequence[Handle]],
        publisher: Publisher,
        settings: TapSettings = TapSettings(),
        resolver: Callable[[IPv4Address], Resolver | None] = host_resolver,
    ) -> None:
        """Nothing is made yet.

        Args:
            installation_id: twelve hexadecimal digits.
            place: where bridge and taps are made.
            handles: the addresses of all VMs in the ledger.
            publisher: the host's side of published ports.
            settings: what the configuration says.
            resolver: who answers guests' DNS questions now; None for nobody. It is told the bridge's address, which
                is there when it is called, and may be called often.
        """
        self.name = place.network
        self._id = installation_id
        self._place = place
        self._handles = handles
        self._publisher = publisher
        self._settings = settings
        self._resolver = resolver
        self._lock = threading.RLock()
        self._filter = PacketFilter(installation_id, place.run)
        self._guarded: dict[str, int] = {}  # taps by name; the kernel does not give an index twice

    def applies(self, vm: Vm) -> bool:
        """True for a VM that asked for this network; where it cannot be had, its start tells so.

        The network that needs no rights has a substitute then, see :mod:`banger.host.user_network`.
        """
        if vm.network:
            return vm.network == self.name
        return vm.spec.network == self.name and not (self._place.is_apart and self._place.obstacle())

    def devices(self, vm: Vm) -> Collection[DeviceKind]:  # noqa: ARG002
        """A card on a tap."""
        return (TapNic,)

    def mounts(self, vm: Vm) -> Collection[Mount]:  # noqa: ARG002
        """None."""
        return ()

    def prepare(self, vm: Vm, image: Image, ledger: VmLedger, operation: Operation) -> Contribution:  # noqa: ARG002
        """Give the VM addresses, ports, rules and a tap. The rules are there before the tap is.

        Raises:
            BangerError: ``unavailable`` without the rights or programs it takes, ``usage`` for an egress policy that
                cannot be followed, ``conflict`` or ``exhausted`` for addresses and ports.
        """
        self._require()
        with self._lock, self._publisher.opened(vm) as bound:
            operation.token.raise_if_cancelled()
            if warning := self._place.open():
                operation.note(warning)
            others = [guest for guest in self._guests() if guest.vm_id != vm.id]
            guest = self._allot(vm, ledger, others, [forward for forward, _ in bound])
            crashpoint("tap.prepare:written")
            mtu, _ = self._raise_network(guest.plan)
            crashpoint("tap.prepare:bridge-up")
            resolver = self._resolver(guest.plan.gateway)
            _check_names(vm, guest, resolver)
            rules = self._rules([*others, guest])
            self._filter.admit(rules, guest)
            crashpoint("tap.prepare:rules-applied")
            index = self._place.run(links.ensure_tap, self._id, guest, self._settings.vmm_uid, mtu)
            crashpoint("tap.prepare:tap-up")
            self._open_loopback(rules, {guest.tap: index})
            # Whoever waits at a port of a VM that is being woken has come before the rules that the kernel goes by.
            relayed = [(one, port) for one, port in bound if guest.is_relayed(one) or has_callers(port)]
            self._publisher.forward(vm, relayed, ledger)
        ledger.activate(TAP_KIND, guest.tap)
        ledger.activate(ADDRESS_KIND, str(guest.address), guest.detail())
        return Contribution(
            devices=(TapNic(guest.tap, guest.mac, mtu, self._place.entering()),),
            network=_guest_network(guest, mtu, has_resolver=resolver is not None),
            address="127.0.0.1" if guest.is_apart else str(guest.address),
            ports=guest.ports,
        )

    def hold(self, vm: Vm, ledger: VmLedger) -> None:  # noqa: ARG002
        """Take the tap down."""
        self._set_held(ledger, held=True)

    def started(self, vm: Vm, ledger: VmLedger) -> None:
        """A forwarder lives as long as the VMM from now on; a tap that is held comes up."""
        self._set_held(ledger, held=False)
        self._publisher.begin(vm, ledger)

    def adopted(self, vm: Vm, ledger: VmLedger) -> None:
        """A forwarder that has ended under a running VM is started anew."""
        if ledger.of(ADDRESS_KIND):
            self._publisher.again(vm, ledger)

    def cleanup(self, vm: Vm, ledger: VmLedger) -> Sequence[CleanupStep]:
        """The tap first, the rules that confine it after it, and then its address and its ports are free for others."""
        relay, tap = f"relay of {vm.name}", f"tap of {vm.name}"
        if not self._is_held(ledger):
            return []
        return [
            CleanupStep(relay, lambda: self._publisher.end(vm, ledger)),
            CleanupStep(tap, lambda: self._remove_tap(ledger)),
            CleanupStep(
                f"network rules and address of {vm.name}", lambda: self._release(vm.id, ledger), needs=(relay, tap)
            ),
        ]

    def erase(self, vm: Vm) -> None:
        """Nothing lasts longer than a start."""

    def used_bytes(self, vm: Vm) -> int:  # noqa: ARG002
        """No disk."""
        return 0

    def refresh(self, vms: Collection[Vm]) -> None:
        """Put back what somebody removed: bridge, addresses, rules. Remove them when nobody needs them.

        Raises:
            BangerError: ``unavailable`` or ``denied`` if guests need it and it cannot be done.
        """
        with self._lock:
            guests = self._guests_of(vms)
            if not guests:
                if self._place.exists():
                    self._lower_network()
                return
            self._require()
            self._place.open()
            _, was_up = self._raise_network(guests[0].plan)
            rules = self._rules(guests)
            self._filter.restore(rules)
            taps = {link.name: link for link in self._place.run(links.all_links)}
            bridge = taps[rules.bridge].index
            for guest in guests:
                tap = taps.get(guest.tap)
                if tap and not guest.held and not (was_up and tap.master == bridge and tap.is_up):
                    self._place.run(links.ensure_tap, self._id, guest, self._settings.vmm_uid)
            self._open_loopback(rules, {name: link.index for name, link in taps.items()})

    def host_objects(self) -> Sequence[HostObject]:
        """Bridge, taps and tables of this installation."""
        return host_objects(self._id, self._guests(), self._lower_network, self._place) if self._place.exists() else ()

    def add_allowed(self, vm_id: str, addresses: Collection[str], ttl_s: float) -> None:
        """Let a VM that is confined to names reach what one of them stands for. For the resolver, before it answers.

        Nothing happens for a VM that is not, or not any more, confined to names.

        Args:
            vm_id: who asked.
            addresses: IPv4 and IPv6 addresses of the answer.
            ttl_s: how long the answer holds, in seconds.

        Raises:
            BangerError: ``unavailable`` if the rules cannot be changed.
        """
        with self._lock:
            guest = next((one for one in self._guests() if one.vm_id == vm_id), None)
            if guest is None or not guest.egress.names:
                return
            parsed: list[IPv4Address | IPv6Address] = [ip_address(address) for address in dict.fromkeys(addresses)]
            lifetime_s = max(SHORTEST_ALLOWED_S, min(round(ttl_s), LONGEST_ALLOWED_S))
            self._place.run(nft.allow, table_name(self._id), vm_id, parsed, lifetime_s)

    # -- one VM ----------------------------------------------------------------------------------------

    def _allot(self, vm: Vm, ledger: VmLedger, others: Sequence[Guest], ports: Sequence[PortForward]) -> Guest:
        """Choose addresses, and write them and the ports down before anything is made."""
        before = next(filter(None, map(Guest.from_handle, ledger.of(ADDRESS_KIND))), None)
        guest = Guest.allot(vm, self._id, self._plan(others), others, before)
        if before is not None and before.address != guest.address:
            ledger.strike(ADDRESS_KIND)
        ledger.strike(PORT_KIND)
        guest = replace(guest, ports=tuple(ports))
        for forwarded in (False, True):
            chosen = [one for one in ports if guest.is_relayed(one) is forwarded]
            self._publisher.hold(ledger, chosen, forwarded=forwarded)
        ledger.intend(ADDRESS_KIND, str(guest.address), guest.detail())
        ledger.intend(TAP_KIND, guest.tap)
        return guest

    def _set_held(self, ledger: VmLedger, *, held: bool) -> None:
        """Nobody but this puts up a tap that the ledger says is held."""
        with self._lock:
            for guest in filter(None, map(Guest.from_handle, ledger.of(ADDRESS_KIND))):
                if guest.held is held:
                    continue
                if held:
                    ledger.activate(ADDRESS_KIND, str(guest.address), replace(guest, held=True).detail())
                self._place.run(links.set_tap, guest.tap, up=not held)
                if not held:
                    ledger.activate(ADDRESS_KIND, str(guest.address), replace(guest, held=False).detail())

    def _remove_tap(self, ledger: VmLedger) -> None:
        for handle in ledger.of(TAP_KIND):
            if self._place.exists():
                self._place.run(links.remove_tap, self._id, handle.key)
            self._guarded.pop(handle.key, None)
        crashpoint("tap.cleanup:tap-gone")
        ledger.strike(TAP_KIND)

    def _release(self, vm_id: str, ledger: VmLedger) -> None:
        with self._lock:
            guests = self._guests()
            left = [guest for guest in guests if guest.vm_id != vm_id]
            if left and self._place.exists():
                for guest in guests:
                    if guest.vm_id == vm_id:
                        self._filter.dismiss(self._rules(left), guest)
                        self._place.run(links.forget_neighbour, self._id, guest)
            elif not left:
                self._lower_network()
            crashpoint("tap.cleanup:rules-gone")
            ledger.strike(ADDRESS_KIND)
            ledger.strike(PORT_KIND)

    def _require(self) -> None:
        if reason := self._place.obstacle():
            hint = "banger doctor; or use --network user"
            raise BangerError(ErrorKind.UNAVAILABLE, "this daemon cannot make taps", cause=reason, hint=hint)

    # -- what all share --------------------------------------------------------------------------------

    def _guests(self) -> list[Guest]:
        """All of this network that the ledger knows."""
        return guests_in(self._handles(), self.name)

    def _is_held(self, ledger: VmLedger) -> bool:
        """The VM holds something of this network: an entry that does not read as one is of the host's."""
        addresses = ledger.of(ADDRESS_KIND)
        networks = {str(one.detail.get("network", "tap")) for one in addresses}
        return self.name in networks or (not addresses and self.name == "tap" and bool(ledger.of(TAP_KIND)))

    def _guests_of(self, vms: Collection[Vm]) -> list[Guest]:
        """What the ledger knows, and running VMs whose entry was lost. One that is starting is only in the ledger."""
        guests = self._guests()
        known = {guest.vm_id for guest in guests}
        lost = [vm for vm in vms if self.applies(vm) and vm.address and vm.id not in known]
        plan = guests[0].plan if guests else self._bridge_plan() if lost else None
        if plan is None:
            return guests
        return guests + [guest for guest in (Guest.of_running(vm, self._id, plan) for vm in lost) if guest]

    def _plan(self, others: Sequence[Guest]) -> Plan:
        """The plan of those that run; without any, one that suits the host's routes as they are now."""
        if others:
            return others[0].plan
        bridge, ipv6 = bridge_name(self._id), self._settings.ipv6 and self._place.run(has_ipv6)
        routes = self._place.run(links.host_routes, bridge)
        if not self._place.is_apart:
            return choose_plan(self._id, routes, self._settings.subnet, ipv6=ipv6)
        # Apart from what the host has, its own bridge too: a guest could not get there.
        return choose_plan(f"{self._id} {self.name}", [*routes, *links.host_routes("")], ipv6=ipv6)

    def _bridge_plan(self) -> Plan | None:
        return self._place.run(links.bridge_plan, self._id) if self._place.exists() else None

    def _raise_network(self, plan: Plan) -> tuple[int, bool]:
        """Forwarding and the bridge; the MTU of the way out, and whether the bridge was up already."""
        self._place.route(ipv6=plan.subnet6 is not None)
        mtu = self._place.run(links.uplink_mtu)
        return mtu, self._place.run(links.ensure_bridge, self._id, plan, mtu)

    def _lower_network(self) -> None:
        """Rules and bridge go, the bridge first: what it still carried stays confined until then."""
        with self._lock:
            self._filter.forget()
            if self._place.is_apart:
                self._place.close()
                return
            links.remove_bridge(self._id)
            crashpoint("tap.cleanup:bridge-gone")
            if any(name == table_name(self._id) for _, name in nft.tables()):
                nft.remove(table_name(self._id))

    def _rules(self, guests: Sequence[Guest]) -> Ruleset:
        """The rules for these guests, with which loopback addresses are not routed if they need not be."""
        plan = guests[0].plan
        rules = Ruleset(self._id, plan, guests, self._resolver(plan.gateway), refused=self._place.refused())
        if not rules.needs_loopback:
            self._place.run(route_loopback, rules.bridge, wanted=False)
        return rules

    def _open_loopback(self, rules: Ruleset, indexes: Mapping[str, int]) -> None:
        """Route loopback addresses if these rules need it, once every tap is guarded. ``indexes`` are of known taps."""
        if not rules.needs_loopback:
            return
        taps = {guest.tap for guest in rules.guests}
        if taps - {*indexes, *self._guarded}:
            indexes = {link.name: link.index for link in self._place.run(links.all_links)}
        for tap in sorted(taps & indexes.keys()):
            if self._guarded.get(tap) != indexes[tap]:
                self._place.run(guard, tap)
                self._guarded[tap] = indexes[tap]
        self._place.run(route_loopback, rules.bridge, wanted=True)


def _guest_network(guest: Guest, mtu: int, *, has_resolver: bool) -> GuestNetwork:
    plan = guest.plan
    return GuestNetwork(
        address=f"{guest.address}/{plan.subnet.prefixlen}",
        gateway=str(plan.gateway),
        nameserver=str(plan.gateway) if has_resolver else "",
        address6=f"{guest.address6}/{plan.subnet6.prefixlen}" if plan.subnet6 else "",
        gateway6=str(plan.gateway6 or ""),
        mtu=mtu,
    )


def _check_names(vm: Vm, guest: Guest, resolver: Resolver | None) -> None:
    if guest.egress.names and not (resolver and resolver.follows_names):
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'the egress policy of "{vm.name}" needs banger\'s resolver, which does not run',
            subject=vm.name,
            hint="write allow=CIDR,… instead, or see why: banger daemon logs",
        )
