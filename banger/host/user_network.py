"""The networks ``user`` and ``none``: the VMM's own user-mode stack, with ports published on this host.

Needs no privilege. Published ports are held by a forwarder
(:mod:`banger.forwarding`), which the VM's own stack is reached from by way of loopback ports that nobody else is told
of: that stack accepts connections for ports on which nobody listens, which would lie to whoever waits for a server.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

from banger.core.crashpoints import crashpoint
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
from banger.core.publishing import is_cut_off
from banger.core.wire.port_forward import PortForward
from banger.forwarding.forwarders import Opened, Target
from banger.forwarding.publisher import PORT_KIND, Publisher

#: QEMU's user-mode network, see "Using the user mode network stack" in QEMU's manual.
ADDRESS, GATEWAY, NAMESERVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"
#: Ports of a VM's inner address begin here: below those that the kernel gives out by itself.
_INNER_PORTS = range(20000, 32000)


class UserNetwork:
    """Implements :class:`banger.core.ports.Capability`."""

    name = "ports"

    def __init__(self, publisher: Publisher) -> None:
        """Nothing is made yet."""
        self._publisher = publisher

    def applies(self, vm: Vm) -> bool:
        """True for a VM that has no other network, but not for one that has none at all."""
        return vm.spec.network in ("user", "none") and not is_cut_off(vm.spec.network, vm.spec.ports)

    def devices(self, vm: Vm) -> Collection[DeviceKind]:  # noqa: ARG002
        """A card on the VMM's own stack."""
        return (UserNic,)

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
            inner = inner_forwards(vm.id, published)
            opened = [Opened(port, _target(inner, forward)) for forward, port in bound]
            targets = [one.target for one in opened]
            self._publisher.hold(ledger, list(zip(published, targets, strict=True)))
            crashpoint("ports.prepare:written")
            self._publisher.forward(vm, opened, ledger)
        is_open = vm.spec.network == "user"
        return Contribution(
            devices=(UserNic(inner, restricted=not is_open),),
            network=GuestNetwork(ADDRESS, GATEWAY if is_open else "", NAMESERVER if is_open else ""),
            address="127.0.0.1",
            ports=published,
        )

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


def inner_forwards(vm_id: str, published: Sequence[PortForward]) -> tuple[PortForward, ...]:
    """What the VMM listens on for its forwarder: a loopback address of this VM's own, a port for each of the guest's.

    The kernel has all of 127.0.0.0/8, so that no published port is spent on it. Raises ``exhausted``.
    """
    digest = sha256(vm_id.encode()).digest()
    address = f"127.{64 + digest[0] % 64}.{digest[1]}.{1 + digest[2] % 254}"
    ports = iter(_INNER_PORTS)
    wanted = dict.fromkeys((forward.guest_port, forward.protocol) for forward in published)
    return tuple(_inner(PortForward(guest, 0, address, protocol), ports) for guest, protocol in wanted)


def _inner(forward: PortForward, ports: Iterator[int]) -> PortForward:
    kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
    for port in ports:
        with socket.socket(socket.AF_INET, kind) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is left of the start before
            probe.bind((forward.host_address, port))
            return replace(forward, host_port=port)
    address = forward.host_address
    raise BangerError(ErrorKind.EXHAUSTED, f"no free port on {address}", subject=address, hint="banger vm list")


def _target(inner: Sequence[PortForward], forward: PortForward) -> Target:
    wanted = (forward.guest_port, forward.protocol)
    one = next(one for one in inner if (one.guest_port, one.protocol) == wanted)
    return Target("stack", one.host_address, one.host_port)
