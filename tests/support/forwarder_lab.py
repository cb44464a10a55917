"""The real forwarder process, told of a VM whose guest is whatever a test puts behind a socket."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from banger.core import clock
from banger.core.models import ProcessIdentity, Vm, VmSpec, VmState
from banger.core.names import new_id
from banger.core.wire.port_forward import PortForward
from banger.forwarding.endings import Endings
from banger.forwarding.forwarders import FORWARDER_KIND, Forwarders, Opened, Reach
from banger.forwarding.host_ports import bound_ports
from banger.vmm import identity as processes
from tests.support.netlab import MemoryLedger
from tests.support.waiting import eventually

INSTALLATION = new_id()  # nobody else who runs these tests has the same


class ForwarderLab:
    """One VM and its forwarder.

    Attributes:
        path: the socket that it reaches its guest by.
        patience_s, vsock_port: as it is told, see :class:`Reach`.
    """

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.log = directory / "vmm.log"
        self.path = directory / "ga.sock"
        self.patience_s, self.vsock_port = 20.0, 0
        self.lost: list[str] = []  # VMs whose forwarder ended
        self.endings = Endings(self.lost.append)
        stack.callback(self.endings.close)
        self.forwarders = Forwarders(INSTALLATION, self.reach, self.endings)
        self.vm = Vm(new_id(), "web", VmSpec("debian"), VmState.RUNNING, clock.now())
        self.ledger = MemoryLedger().of_vm(self.vm.id)
        self.vmm = stack.enter_context(stand_in_vmm())
        stack.callback(lambda: self.forwarders.end(self.vm.id, self.ledger))

    def reach(self, vm: Vm) -> Reach:
        """Where the guest is."""
        return Reach(self.path, self.vsock_port, self.log, self.patience_s)

    def publish(self, guest_port: int, address: str = "127.0.0.1", protocol: str = "tcp") -> tuple[str, int]:
        """Publish a port of the guest, instead of what was published before; where it is on the host."""
        with bound_ports([PortForward(guest_port, 0, address, protocol)], {}) as bound:
            self.forwarders.start(self.vm, [Opened(bound[0][1], guest_port)], self.ledger)
        self.forwarders.begin(self.vm.id, self.vmm)
        self.forwarders.watch(self.vm.id, self.ledger)
        identity = self.identity  # between its fork and its exec, it has the command line of these tests
        eventually(lambda: processes.find(identity.marker) == identity, what="its own program runs")
        return address, bound[0][0].host_port

    @property
    def identity(self) -> ProcessIdentity:
        """The process."""
        return ProcessIdentity(**self.ledger.of(FORWARDER_KIND)[0].detail)

    @property
    def words(self) -> str:
        """What it had to say."""
        return self.log.read_text()


Lab = TypeVar("Lab", bound=ForwarderLab)


@contextmanager
def forwarder_lab(directory: Path, kind: type[Lab]) -> Iterator[Lab]:
    """One that is taken down in the end."""
    with ExitStack() as stack:
        yield kind(stack, directory)


@contextmanager
def stand_in_vmm() -> Iterator[ProcessIdentity]:
    """A process that lives as long as a VMM would."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield processes.identify(process.pid, "sleep")
    finally:
        process.kill()
        process.wait()


def connect(place: tuple[str, int]) -> socket.socket:
    """A client."""
    return socket.create_connection(place, timeout=10)


def received(stream: socket.socket) -> bytes:
    """All until the end."""
    data = bytearray()
    while chunk := stream.recv(65536):
        data += chunk
    return bytes(data)


def resident_kib(pid: int) -> int:
    """Its memory."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")))
