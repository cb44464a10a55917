"""One guest for the packet filter, and its form in the ledger. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from banger.core.egress import EgressPolicy
from banger.core.errors import BangerError
from banger.core.models import Vm
from banger.core.ports import Handle
from banger.core.wire.port_forward import PortForward
from banger.network.addresses import Plan, choose_place, mac_of
from banger.network.names import tap_name

#: Kind of the ledger's entry that holds everything but the tap itself; its key is the IPv4 address.
ADDRESS_KIND = "address"
TAP_KIND = "tap"


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM on a tap.

    Attributes:
        plan: the subnets that its addresses are from.
        ports: published ports, every host port chosen.
        network: where its tap is: ``tap`` in the host's own network, ``user`` in a namespace of the installation.
        held: its tap stays down, since the guest does not know yet who it is.
    """

    vm_id: str
    tap: str
    mac: str
    plan: Plan
    address: IPv4Address
    egress: EgressPolicy
    ports: tuple[PortForward, ...] = ()
    network: str = "tap"
    held: bool = False

    @property
    def is_apart(self) -> bool:
        """The host's kernel sends it nothing."""
        return self.network != "tap"

    @property
    def address6(self) -> IPv6Address | None:
        """Its IPv6 address, at the same place of the prefix as the IPv4 address in the subnet."""
        return self.plan.address6(self.place)

    @property
    def place(self) -> int:
        """Its place in the subnet."""
        return int(self.address) - int(self.plan.subnet.network_address)

    @property
    def needs_loopback(self) -> bool:
        """One of its ports is published at a loopback address of the host."""
        addresses = [ip_address(forward.host_address) for forward in self.translated]
        return any(one.version == 4 and (one.is_loopback or one.is_unspecified) for one in addresses)

    def is_relayed(self, forward: PortForward) -> bool:
        """True for a port that the kernel cannot send to the guest, so that a process has to.

        The kernel routes nothing from ``::1`` to another machine, and to a guest that has no IPv6 address no IPv6.
        """
        if self.is_apart:
            return True
        address = ip_address(forward.host_address)
        near = address.is_loopback or address.is_unspecified
        return address.version == 6 and (near or self.address6 is None)

    @property
    def translated(self) -> tuple[PortForward, ...]:
        """The published ports that the kernel sends to the guest."""
        return tuple(forward for forward in self.ports if not self.is_relayed(forward))

    def detail(self) -> dict[str, Any]:
        """What the ledger keeps besides the VM's id and the address."""
        return {
            "network": self.network,
            "tap": self.tap,
            "mac": self.mac,
            "subnet": str(self.plan.subnet),
            "subnet6": str(self.plan.subnet6 or ""),
            "egress": str(self.egress),
            "ports": [[one.host_address, one.host_port, one.guest_port, one.protocol] for one in self.ports],
            "held": self.held,
        }

    @classmethod
    def from_handle(cls, handle: Handle) -> Guest | None:
        """Read the ledger's entry; None if it does not read as one, which leaves that guest cut off."""
        detail = handle.detail
        try:
            return cls(
                vm_id=handle.vm_id,
                tap=str(detail["tap"]),
                mac=str(detail["mac"]),
                plan=_plan(detail["subnet"], detail["subnet6"]),
                address=IPv4Address(handle.key),
                egress=_egress(detail["egress"]),
                ports=tuple(_forward(*words) for words in detail["ports"]),
                network=str(detail.get("network", "tap")),
                held=bool(detail.get("held", False)),
            )
        except (KeyError, TypeError, ValueError, BangerError):
            return None

    @classmethod
    def allot(cls, vm: Vm, installation_id: str, plan: Plan, others: Collection[Guest], before: Guest | None) -> Guest:
        """Give a VM its addresses: those it has already if the plan is still the same. No port is chosen yet.

        Raises:
            BangerError: ``usage`` for its egress policy, ``exhausted`` if there is no address left.
        """
        if before is not None and before.plan == plan:
            place = before.place
        else:
            place = choose_place(vm.id, plan.subnet, {other.place for other in others})
        return cls(
            vm_id=vm.id,
            tap=tap_name(installation_id, vm.id),
            mac=mac_of(vm.id),
            plan=plan,
            address=plan.address(place),
            egress=EgressPolicy.parse(vm.spec.egress),
            network=vm.spec.network,
        )

    @classmethod
    def of_running(cls, vm: Vm, installation_id: str, plan: Plan) -> Guest | None:
        """What must have been allotted to a running VM whose ledger entry was lost; None if it is not in the plan."""
        try:
            address = IPv4Address(vm.address)
            egress = EgressPolicy.parse(vm.spec.egress)
        except (ValueError, BangerError):
            return None
        if address not in plan.subnet:
            return None
        tap, mac = tap_name(installation_id, vm.id), mac_of(vm.id)
        return cls(vm.id, tap, mac, plan, address, egress, vm.ports, vm.spec.network)


@lru_cache(maxsize=16)
def _plan(subnet: str, subnet6: str) -> Plan:
    """All guests have the same, and each start looks at all of them."""
    return Plan(IPv4Network(subnet), IPv6Network(subnet6) if subnet6 else None)


@lru_cache(maxsize=1024)
def _egress(text: str) -> EgressPolicy:
    return EgressPolicy.parse(text)


def _forward(address: str, host_port: int, guest_port: int, protocol: str = "tcp") -> PortForward:
    return PortForward(guest_port, host_port, address, protocol)


def guests_in(handles: Iterable[Handle], network: str = "") -> list[Guest]:
    """All guests that a ledger knows, or those of one network, in the order of their ids."""
    found = [Guest.from_handle(handle) for handle in handles if handle.kind == ADDRESS_KIND]
    wanted = (guest for guest in found if guest is not None and network in ("", guest.network))
    return sorted(wanted, key=lambda guest: guest.vm_id)
