"""The published ports of VMs: held open on the host, written in the ledger, forwarded where the kernel cannot.

Both kinds of networks use it. What they do not share is the way into the guest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple

from loguru import logger

from banger.core.errors import BangerError
from banger.core.models import PortForward, ProcessIdentity, Vm
from banger.core.ports import Handle, HostObject, VmLedger
from banger.forwarding.forwarders import Forwarders, Opened, Target
from banger.forwarding.host_ports import Bound, Taken, bound_ports, choose_ports

#: Kind of the ledger's entries for ports of the host.
PORT_KIND = "port"


class Publisher:
    """Published ports of one installation's VMs."""

    def __init__(self, forwarders: Forwarders, taken: Callable[[str], Taken]) -> None:
        """``taken`` tells which ports of the host VMs other than the given one hold."""
        self._forwarders = forwarders
        self._taken = taken

    @contextmanager
    def opened(self, vm: Vm) -> Iterator[list[Bound]]:
        """What the VM publishes, every port chosen and held. Raises as :func:`bound_ports`."""
        with bound_ports(vm.spec.ports, self._taken(vm.id), vm.last_ports) as bound:
            yield bound

    def choose(self, vm: Vm, wanted: PortForward) -> PortForward:
        """One more port for a VM, which is not held."""
        return choose_ports([wanted], self._taken(vm.id))[0]

    def hold(self, ledger: VmLedger, forward: PortForward, target: Target | None = None) -> None:
        """Write a port down, and where a forwarder takes it, if one does."""
        to = {"to": list(astuple(target))} if target else {}
        ledger.intend(PORT_KIND, port_key(forward), {"guest_port": forward.guest_port, **to})

    def forward(self, vm: Vm, ports: Sequence[Opened], ledger: VmLedger) -> None:
        """Have these ports forwarded, if there are any. Raises ``unavailable``."""
        if ports:
            self._forwarders.start(vm.id, ports, ledger)

    def begin(self, vm: Vm, ledger: VmLedger) -> None:
        """The VMM runs: its forwarder lives as long from now on."""
        for handle in ledger.of("process"):
            self._forwarders.begin(vm.id, ProcessIdentity(**handle.detail))

    def again(self, vm: Vm, ledger: VmLedger) -> None:
        """Start the forwarder of a running VM anew if it has ended."""
        targets = {one.key: _recorded(one) for one in ledger.of(PORT_KIND)}
        lost = [forward for forward in vm.ports if targets.get(port_key(forward))]
        if not lost or self._forwarders.runs(ledger):
            return
        logger.warning("{}: nobody forwards its published ports: starting that again", vm.name)
        try:
            with bound_ports(lost, self._taken(vm.id)) as bound:
                opened = [Opened(port, target) for one, port in bound if (target := targets[port_key(one)])]
                self._forwarders.start(vm.id, opened, ledger)
            self.begin(vm, ledger)
        except BangerError as error:  # somebody took a port meanwhile; the next look tries again
            logger.warning("{}: published ports are not forwarded: {}", vm.name, error)

    def end(self, vm: Vm, ledger: VmLedger) -> None:
        """Nobody forwards for the VM any more. Raises ``timeout``."""
        self._forwarders.end(vm.id, ledger)

    def host_objects(self) -> Sequence[HostObject]:
        """The forwarders."""
        return self._forwarders.host_objects()


def port_key(forward: PortForward) -> str:
    """The ledger's key of a host port: ``127.0.0.1:8080/tcp``, ``::1:53/udp``."""
    return f"{forward.host_address}:{forward.host_port}/{forward.protocol}"


def held_ports(handles: Sequence[Handle], names: dict[str, str], besides: str) -> Taken:
    """``(protocol, address, port)`` to the name of the VM that holds it, for every VM but ``besides``."""
    taken: dict[tuple[str, str, int], str] = {}
    for handle in handles:
        if handle.kind == PORT_KIND and handle.vm_id != besides:
            place, _, protocol = handle.key.partition("/")  # of a VM that an older daemon started, there is none
            address, _, port = place.rpartition(":")
            taken[protocol or "tcp", address, int(port)] = names.get(handle.vm_id, handle.vm_id)
    return taken


def _recorded(handle: Handle) -> Target | None:
    to = handle.detail.get("to")
    return Target(*to) if to else None
