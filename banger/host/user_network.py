"""The networks ``none``, without a card, and ``slirp``, the VMM's own user-mode stack; both with published ports.

Needs no privilege. That stack has the host's loopback behind its gateway and knows no policy: it reaches all that the
daemon's user reaches. Where the network ``user`` cannot be had, a VM of that network is on this stack if it may reach
everything; with any other policy, which this stack cannot hold, it has no card.

Published ports are held by a forwarder (:mod:`banger.forwarding`), which reaches the guest through its agent: QEMU's
stack would accept connections for ports on which nobody listens, and mislead who waits for a server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from banger.core.crashpoints import crashpoint
from banger.core.egress import EgressMode, EgressPolicy
from banger.core.errors import BangerError, ErrorKind
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
from banger.core.wire.vm_spec import VmSpec
from banger.forwarding.publisher import PORT_KIND, Publisher

#: QEMU's user-mode network, see "Using the user mode network stack" in QEMU's manual.
ADDRESS, GATEWAY, NAMESERVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"
#: What a VM is told that is confined by nothing, and the way to that.
_SLIRP = "reaches all that this user reaches, this host's own services too: the network slirp confines nothing"
_WAY_OUT = "--egress open, on the network slirp, which confines nothing"
#: The reason where there is none any more.
_A_MOMENT_AGO = "it could not be had when this start began: start it again"
#: Of a guest without a network, so that its servers can tell who comes from outside from its own programs.
ALONE = "10.0.2.15/32"


class UserNetwork:
    """Implements :class:`banger.core.ports.Capability`."""

    name = "ports"

    def __init__(self, publisher: Publisher, obstacle: Callable[[], str]) -> None:
        """Nothing is made yet. ``obstacle`` tells why the network ``user`` cannot be had, or nothing if it can."""
        self._publisher = publisher
        self._obstacle = obstacle

    def applies(self, vm: Vm) -> bool:
        """True for a VM that has no other network."""
        if vm.network or vm.spec.network != "user":
            return (vm.network or vm.spec.network) in ("slirp", "none")
        return bool(self._obstacle())

    def devices(self, vm: Vm) -> Collection[DeviceKind]:
        """A card on the VMM's own stack, for a guest that is to reach something."""
        return (UserNic,) if substitute(vm.spec) == "slirp" else ()

    def mounts(self, vm: Vm) -> Collection[Mount]:  # noqa: ARG002
        """None."""
        return ()

    def prepare(self, vm: Vm, image: Image, ledger: VmLedger, operation: Operation) -> Contribution:  # noqa: ARG002
        """Choose the host's ports, write them down, and have them held.

        Raises:
            BangerError: as :func:`banger.forwarding.host_ports.bound_ports`; ``unavailable``, also for a policy that
                cannot be followed here.
        """
        network = substitute(vm.spec)
        reason = (self._obstacle() or _A_MOMENT_AGO) if network != vm.spec.network else ""
        if reason or network == "slirp":
            operation.note(f"{vm.name} {_told(vm, network, reason)}")
        with self._publisher.opened(vm) as bound:
            published = tuple(forward for forward, _ in bound)
            self._publisher.hold(ledger, published, forwarded=True)
            crashpoint("ports.prepare:written")
            self._publisher.forward(vm, bound, ledger)
        is_alone = network == "none"
        return Contribution(
            devices=() if is_alone else (UserNic(),),
            network=GuestNetwork(ALONE) if is_alone else GuestNetwork(ADDRESS, GATEWAY, NAMESERVER),
            network_name=network,
            network_reason=reason,
            address="127.0.0.1",
            ports=published,
        )

    def hold(self, vm: Vm, ledger: VmLedger) -> None:
        """QEMU's own stack is the guest's alone: no other machine is on it."""

    def started(self, vm: Vm, ledger: VmLedger) -> None:
        """The forwarder lives as long as the VMM from now on."""
        self._publisher.begin(vm, ledger)

    def adopted(self, vm: Vm, ledger: VmLedger) -> None:
        """A forwarder that has ended under a running VM is started anew; that of one that has a tap is not ours."""
        if not ledger.of("address"):
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


def substitute(spec: VmSpec) -> str:
    """The network that a VM is on here: its own, or what there is instead of ``user``. Pure."""
    if spec.network != "user":
        return spec.network
    return "slirp" if EgressPolicy.parse(spec.egress).mode is EgressMode.OPEN else "none"


def _told(vm: Vm, network: str, reason: str) -> str:
    """What a start says of the network that is not as it should be. Raises ``unavailable`` if that is no use.

    ``reason`` is why it is not the network ``user``, with a remedy behind a colon; empty if nobody asked for that.
    """
    policy = EgressPolicy.parse(vm.spec.egress)
    if network == "slirp":
        return f"{_SLIRP}; it is used instead of user: {reason}" if reason else _SLIRP
    if policy.mode is EgressMode.ALLOW:
        cause, _, remedy = reason.partition(": ")
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'"{vm.name}" cannot have the egress policy "{policy}" here',
            subject=vm.name,
            cause=cause,
            hint=f"{remedy or 'banger doctor'}; or {_WAY_OUT}",
        )
    return f"has no network: {reason}" + (f"; or {_WAY_OUT}" if policy.mode is EgressMode.PUBLIC else "")
