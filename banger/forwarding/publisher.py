"""The published ports of VMs: bound on the host, recorded in the ledger, forwarded where the kernel cannot.

Every kind of network uses it: what a forwarder forwards goes through the guest's agent, which needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from loguru import logger

from banger.core import codec
from banger.core.errors import BangerError
from banger.core.models import ProcessIdentity, Vm
from banger.core.ports import Handle, HostObject, VmLedger
from banger.core.publishing import runs
from banger.core.wire.port_forward import PortForward
from banger.forwarding.doorbells import Doorbells
from banger.forwarding.forwarders import Forwarders, Opened
from banger.forwarding.host_ports import Bound, Taken, bound_ports

#: Kind of the ledger's entries for ports of the host.
PORT_KIND = "port"


class Publisher:
    """Published ports of one installation's VMs."""

    def __init__(self, forwarders: Forwarders, taken: Callable[[str], Taken], doorbells: Doorbells) -> None:
        """``taken`` tells which ports of the host VMs other than the given one hold in the ledger."""
        self._forwarders = forwarders
        self._in_ledger = taken
        self._doorbells = doorbells
        self._woken: set[str] = set()

    @contextmanager
    def opened(self, vm: Vm) -> Iterator[list[Bound]]:
        """What the VM publishes, every port chosen and held. Raises as :func:`bound_ports`."""
        kept = self._doorbells.take(vm.id)
        if kept:
            self._woken.add(vm.id)
        try:
            with bound_ports(vm.spec.ports, self._taken(vm.id), vm.last_ports, kept) as bound:
                yield bound
        finally:
            self._woken.discard(vm.id)

    def hold(self, ledger: VmLedger, ports: Sequence[PortForward], *, forwarded: bool) -> None:
        """Write ports down, and whether a forwarder has them. A range is one entry, synced once."""
        for run in runs(ports):
            ledger.intend(PORT_KIND, port_key(run), {"guest_port": run[0].guest_port, "forwarded": forwarded})

    def forward(self, vm: Vm, ports: Sequence[Bound], ledger: VmLedger) -> None:
        """Have these ports forwarded, if there are any. Raises ``unavailable``."""
        if ports:
            opened = [Opened(port, forward.guest_port) for forward, port in ports]
            self._forwarders.start(vm, opened, ledger, waits=vm.id in self._woken)

    def listen(self, vm: Vm) -> None:
        """Hold the ports that a suspended VM publishes, and have it woken by who comes to one. Idempotent.

        Raises:
            BangerError: as :func:`bound_ports`: none is held then.
        """
        if vm.last_ports and not self._doorbells.holds(vm.id):
            with bound_ports(vm.last_ports, self._taken(vm.id)) as bound:
                self._doorbells.hold(vm.id, vm.name, bound)

    def let_go(self, vm_id: str) -> None:
        """Hold the ports of a VM no more that is no longer suspended, and refuse who waits there. Idempotent."""
        self._doorbells.let_go(vm_id)

    def begin(self, vm: Vm, ledger: VmLedger) -> None:
        """The VMM runs: its forwarder lives as long from now on."""
        for handle in ledger.of("process"):
            self._forwarders.begin(vm.id, codec.from_plain(ProcessIdentity, handle.detail, tolerant=True))
        self._forwarders.watch(vm.id, ledger)

    def again(self, vm: Vm, ledger: VmLedger) -> None:
        """Start the forwarder of a running VM anew if it has ended."""
        if not vm.ports:
            return
        forwarded = {place for one in ledger.of(PORT_KIND) if _is_forwarded(one) for place in _places(one)}
        lost = [forward for forward in vm.ports if _place(forward) in forwarded]
        if not lost:
            return
        if self._forwarders.runs(ledger):
            self._forwarders.watch(vm.id, ledger)
            return
        if not self._forwarders.can_reach(vm):
            logger.warning(
                "{}: nobody forwards its published ports, as an older banger did: banger vm restart {}",
                vm.name,
                vm.name,
            )
            return
        logger.warning("{}: nobody forwards its published ports: starting that again", vm.name)
        try:
            with bound_ports(lost, self._taken(vm.id)) as bound:
                self.forward(vm, bound, ledger)
            self.begin(vm, ledger)
        except BangerError as error:  # somebody took a port meanwhile; the next look tries again
            logger.warning("{}: published ports are not forwarded: {}", vm.name, error)

    def end(self, vm: Vm, ledger: VmLedger) -> None:
        """Nobody forwards for the VM any more. Raises ``timeout``."""
        self._forwarders.end(vm.id, ledger)

    def _taken(self, besides: str) -> Taken:
        return {**self._in_ledger(besides), **self._doorbells.taken(besides)}

    def host_objects(self) -> Sequence[HostObject]:
        """The forwarders."""
        return self._forwarders.host_objects()


def port_key(run: Sequence[PortForward]) -> str:
    """The ledger's key of neighbouring host ports: ``127.0.0.1:8080/tcp``, ``::1:53/udp``, ``0.0.0.0:80-90/tcp``."""
    first, last = run[0].host_port, run[-1].host_port
    ports = f"{first}-{last}" if last > first else str(first)
    return f"{run[0].host_address}:{ports}/{run[0].protocol}"


def held_ports(handles: Sequence[Handle], names: dict[str, str], besides: str) -> Taken:
    """``(protocol, address, port)`` to the name of the VM that holds it, for every VM but ``besides``."""
    ports = (one for one in handles if one.kind == PORT_KIND and one.vm_id != besides)
    return {place: names.get(one.vm_id, one.vm_id) for one in ports for place in _places(one)}


def _places(handle: Handle) -> list[tuple[str, str, int]]:
    """What an entry stands for; that of a VM which an older daemon started names no protocol."""
    place, _, protocol = handle.key.partition("/")
    address, _, ports = place.rpartition(":")
    first, _, last = ports.partition("-")
    return [(protocol or "tcp", address, port) for port in range(int(first), int(last or first) + 1)]


def _is_forwarded(handle: Handle) -> bool:
    """A forwarder has the ports of an entry; an older banger wrote down where it forwards them ``to``."""
    return bool(handle.detail.get("forwarded") or handle.detail.get("to"))


def _place(forward: PortForward) -> tuple[str, str, int]:
    return forward.protocol, forward.host_address, forward.host_port
