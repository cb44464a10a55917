"""The networks ``user``, the VMM's own user-mode stack, and ``none``, both with ports published on this host.

Needs no privilege. Published ports are held by a forwarder (:mod:`banger.forwarding`), which reaches the guest through
its agent: QEMU's stack would accept connections for ports on which nobody listens, and mislead who waits for a server.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from banger.core.crashpoints import crashpoint
from banger.core.models import Image, Vm
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import (
    Contribution,
    DeviceKind,
    GuestNetwork,
    HostObject,
    Mount,
    UserNic,
    VmLedger,
)
from banger.forwarding.publisher import PORT_KIND, Publisher

#: QEMU's user-mode network, see "Using the user mode network stack" in QEMU's manual.
ADDRESS, GATEWAY, NAMESERVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"
#: Of a guest without a network, so that its servers can tell who comes from outside from its own programs.
ALONE = "10.0.2.15/32"


class UserNetwork:
    """Implements :class:`banger.core.ports.Capability`."""

    name = "ports"

    def __init__(self, publisher: Publisher) -> None:
        """Nothing is made yet."""
        self._publisher = publisher

    def applies(self, vm: Vm) -> bool:
        """True for a VM that has no other network."""
        return vm.spec.network in ("user", "none")

    def devices(self, vm: Vm) -> Collection[DeviceKind]:
        """A card on the VMM's own stack, for a guest that is to reach something."""
        return (UserNic,) if vm.spec.network == "user" else ()

    def mounts(self, vm: Vm) -> Collection[Mount]:  # noqa: ARG002
        """None."""
        return ()

    def prepare(self, vm: Vm, image: Image, ledger: VmLedger, operation: Operation) -> Contribution:  # noqa: ARG002
        """Choose the host's ports, write them down, and have them held.

        Raises:
            BangerError: as :func:`banger.forwarding.host_ports.bound_ports`; ``unavailable``.
        """
        with self._publisher.opened(vm) as bound:
            published = tuple(forward for forward, _ in bound)
            self._publisher.hold(ledger, published, forwarded=True)
            crashpoint("ports.prepare:written")
            self._publisher.forward(vm, bound, ledger)
        if vm.spec.network == "none":
            return Contribution(network=GuestNetwork(ALONE), address="127.0.0.1", ports=published)
        network = GuestNetwork(ADDRESS, GATEWAY, NAMESERVER)
        return Contribution(devices=(UserNic(),), network=network, address="127.0.0.1", ports=published)

    def started(self, vm: Vm, ledger: VmLedger) -> None:
        """The forwarder lives as long as the VMM from now on."""
        self._publisher.begin(vm, ledger)

    def adopted(self, vm: Vm, ledger: VmLedger) -> None:
        """A forwarder that has ended under a running VM is started anew."""
        self._publisher.again(vm, ledger)

    def cleanup(self, vm: Vm, ledger: VmLedger) -> Sequence[CleanupStep]:
        """The forwarder lets go of the ports, and then they are free."""
        forwarder = f"forwarder of {vm.name}"
        return [
            CleanupStep(forwarder, lambda: self._publisher.end(vm, ledger)),
            CleanupStep("ports", lambda: ledger.strike(PORT_KIND), needs=(forwarder,)),
        ]

    def erase(self, vm: Vm) -> None:
        """Nothing lasts longer than a start."""

    def used_bytes(self, vm: Vm) -> int:  # noqa: ARG002
        """No disk."""
        return 0

    def refresh(self, vms: Collection[Vm]) -> None:
        """Nothing is shared."""

    def host_objects(self) -> Sequence[HostObject]:
        """The forwarders."""
        return self._publisher.host_objects()
