"""Names and addresses of running VMs for the resolver, from the store and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from banger.core.egress import EgressMode, EgressPolicy
from banger.core.models import VmState
from banger.dns.model import Guest, World
from banger.dns.patterns import NamePatterns
from banger.host.ledger import Ledger
from banger.network.guests import ADDRESS_KIND, guests_in
from banger.network.guests import Guest as GuestOnTap
from banger.store import Store

_UP = (VmState.RUNNING, VmState.PAUSED)


class VmNames:
    """Looks everything up anew for each question: what the store says is never out of date."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    def world(self, open_addresses: Callable[[str, Sequence[str], int], None]) -> World:
        """What the resolver asks and tells; ``open_addresses`` lets a guest reach what a name stands for."""
        return World(self.addresses_of, self.name_of, self.guest_of, open_addresses)

    def addresses_of(self, name: str, asking: Guest | None) -> Sequence[str] | None:
        """The addresses of a VM that runs; None if there is none of that name.

        In a namespace of its own it has one for guests there, and one for the host, where its published ports are.
        """
        vm = self._store.vms.by_name(name)
        if vm is None or vm.state not in _UP:
            return None
        on_tap = self._on_tap(vm.id)
        if on_tap is None or (asking is None and on_tap.is_apart):
            return [vm.address] if vm.address else []
        near = self._on_tap(asking.vm_id) if asking else None
        return _addresses(on_tap) if near is None or near.network == on_tap.network else []

    def name_of(self, address: str) -> str | None:
        """The VM on a tap that has this address."""
        owner = self._at(address)
        vm = self._store.vms.get(owner.vm_id) if owner else None
        return vm.name if vm and vm.state in _UP else None

    def guest_of(self, source: str) -> Guest | None:
        """The guest that asks, and the names that its egress policy lets it look up."""
        owner = self._at(source.partition("%")[0])
        return Guest(owner.vm_id, allowed_names(owner.egress)) if owner else None

    def _at(self, address: str) -> GuestOnTap | None:
        guests = guests_in(self._ledger.all(ADDRESS_KIND))
        return next((guest for guest in guests if address in _addresses(guest)), None)

    def _on_tap(self, vm_id: str) -> GuestOnTap | None:
        return next(iter(guests_in(self._ledger.of(vm_id).of())), None)


def allowed_names(policy: EgressPolicy) -> NamePatterns | None:
    """The names that a policy lets a guest look up; None for every name."""
    if policy.mode in (EgressMode.OPEN, EgressMode.PUBLIC):
        return None
    return NamePatterns.parse(policy.names) if policy.names else NamePatterns()


def _addresses(guest: GuestOnTap) -> list[str]:
    return [str(address) for address in (guest.address, guest.address6) if address is not None]
