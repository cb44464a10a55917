"""The networks ``user`` and ``none``: the VMM's own user-mode stack, with ports forwarded on this host's loopback.

Needs no privilege and leaves nothing on the host but listening sockets of the VMM itself. The ledger keeps the
ports, so that two VMs are never promised the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from banger.core.crashpoints import crashpoint
from banger.core.models import Image, PortForward, Vm
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import Contribution, GuestNetwork, Handle, HostObject, UserNic, VmLedger
from banger.host.loopback_ports import Taken, choose_ports

#: QEMU's user-mode network, see "Using the user mode network stack" in QEMU's manual.
ADDRESS, GATEWAY, NAMESERVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"
PORT_KIND = "port"


class UserNetwork:
    """Implements :class:`banger.core.ports.Capability`."""

    name = "ports"

    def __init__(self, guest_ssh_port: int, taken: Callable[[str], Taken]) -> None:
        """``taken`` tells which host ports VMs other than the given one hold."""
        self._guest_ssh_port = guest_ssh_port
        self._taken = taken

    def applies(self, vm: Vm) -> bool:
        """True for a VM that has no other network."""
        return vm.spec.network in ("user", "none")

    def prepare(self, vm: Vm, image: Image, ledger: VmLedger, operation: Operation) -> Contribution:  # noqa: ARG002
        """Choose the host's ports and write them down."""
        wanted = [PortForward(self._guest_ssh_port), *vm.spec.ports]
        chosen = choose_ports(wanted, self._taken(vm.id))
        for forward in chosen:
            ledger.intend(PORT_KIND, port_key(forward), {"guest_port": forward.guest_port})
        crashpoint("ports.prepare:written")
        is_open = vm.spec.network == "user"
        return Contribution(
            nic=UserNic(chosen, restricted=not is_open),
            network=GuestNetwork(ADDRESS, GATEWAY if is_open else "", NAMESERVER if is_open else ""),
            address="127.0.0.1",
            ssh_port=chosen[0].host_port,
            ports=tuple(chosen[1:]),
        )

    def started(self, vm: Vm, ledger: VmLedger) -> None:
        """The VMM listens by itself."""

    def cleanup(self, vm: Vm, ledger: VmLedger) -> Sequence[CleanupStep]:  # noqa: ARG002
        """The ports are free once the VMM is gone."""
        return [CleanupStep("ports", lambda: ledger.strike(PORT_KIND))]

    def erase(self, vm: Vm) -> None:
        """Nothing lasts longer than a start."""

    def refresh(self, vms: Collection[Vm]) -> None:
        """Nothing is shared."""

    def host_objects(self) -> Sequence[HostObject]:
        """Nothing outlives the VMM."""
        return []


def port_key(forward: PortForward) -> str:
    """The ledger's key of a host port."""
    return f"{forward.host_address}:{forward.host_port}"


def held_ports(handles: Sequence[Handle], names: dict[str, str], besides: str) -> dict[tuple[str, int], str]:
    """``(address, port)`` to the name of the VM that holds it, for every VM but ``besides``."""
    taken: dict[tuple[str, int], str] = {}
    for handle in handles:
        if handle.kind == PORT_KIND and handle.vm_id != besides:
            address, _, port = handle.key.rpartition(":")
            taken[address, int(port)] = names.get(handle.vm_id, handle.vm_id)
    return taken
