"""A small world of network namespaces: a host, what lies beyond it, and guests behind the host's taps.

Namespaces are held by processes of their own and are gone with them. A thread may enter one for a moment: sockets that
it makes there stay there, so that servers, clients and forged frames are plain sockets of the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from banger.core.models import Vm, VmState
from banger.core.operation import Operation
from banger.core.ports import Contribution, Handle, TapNic
from banger.core.wire.vm_spec import VmSpec
from banger.forwarding.doorbells import Doorbells
from banger.forwarding.forwarders import Forwarders, Reach
from banger.forwarding.publisher import Publisher
from banger.host.cascade import run_all
from banger.network.names import bridge_name
from banger.network.place import HostPlace, Place
from banger.network.probe import available
from banger.network.resolver import Resolver
from banger.network.tap import TapNetwork, TapSettings
from tests.support.agent_world import RunningAgent
from tests.support.netns import settle_namespace

INSTALLATION, OTHER_INSTALLATION = "0123456789ab", "ba9876543210"
HOST, HOST6 = "192.0.2.1", "2001:db8:1::1"
WORLD, WORLD6 = "192.0.2.254", "2001:db8:1::fe"
SERVER, SERVER6 = "198.51.100.10", "2001:db8:99::10"
OTHER_SERVER = "198.51.100.20"
PRIVATE_SERVER, METADATA = "10.255.255.9", "169.254.169.254"

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)

needs_taps = pytest.mark.skipif(not available()[0], reason=available()[1])


class Namespace:
    """A network namespace with its loopback up."""

    def __init__(self, stack: ExitStack, pid: int = 0) -> None:
        """A new one, or that of a process."""
        if pid:
            self._enter_of(stack, pid)
            return
        holder = stack.enter_context(subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=-1))
        stack.callback(holder.kill)
        assert holder.stdin
        assert holder.stdout
        holder.stdin.write(b"x")
        holder.stdin.flush()
        holder.stdout.read(1)  # it has unshared
        self._enter_of(stack, holder.pid)
        with self.entered():
            settle_namespace()
        self.run("ip link set lo up")

    def _enter_of(self, stack: ExitStack, pid: int) -> None:
        self._handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        stack.callback(os.close, self._handle)
        self.pid = pid

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts meanwhile, is inside."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _setns(self._handle)
            yield
        finally:
            _setns(home)
            os.close(home)

    def run(self, command: str, *, check: bool = True) -> str:
        """Run a shell command inside; what it printed."""
        with self.entered():
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def socket(self, *kind: int) -> socket.socket:
        """A socket that belongs here, with a timeout."""
        with self.entered():
            made = socket.socket(*kind)
        made.settimeout(5)
        return made

    def fetch(self, address: str, port: int, timeout_s: float = 5.0) -> str:
        """Connect; what the server says."""
        with self.socket(_family(address), socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect((address, port))
            return client.recv(100).decode()

    def reaches(self, address: str, port: int, timeout_s: float = 2.5) -> bool:
        """True if a connection comes about; silence counts as no after ``timeout_s``."""
        try:
            return bool(self.fetch(address, port, timeout_s))
        except OSError:
            return False

    def ask(self, address: str, port: int, timeout_s: float = 2.0) -> str:
        """Send a datagram; the answer."""
        with self.socket(_family(address), socket.SOCK_DGRAM) as client:
            client.settimeout(timeout_s)
            client.connect((address, port))
            client.send(b"?")
            return client.recv(100).decode()

    def hears(self, address: str, port: int, timeout_s: float = 1.5) -> bool:
        """True if a datagram is answered."""
        try:
            return bool(self.ask(address, port, timeout_s))
        except OSError:
            return False

    def send_frame(self, frame: bytes, interface: str = "eth0") -> None:
        """Put a frame on the wire as it is."""
        with self.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((interface, 0))
            raw.send(frame)


class Servers:
    """TCP and UDP servers in any namespace. They answer with the address that they see their client at."""

    def __init__(self, stack: ExitStack) -> None:
        self._selector = selectors.DefaultSelector()
        self._stop, stopper = os.pipe()
        self.datagrams: list[tuple[str, bytes]] = []
        self._selector.register(self._stop, selectors.EVENT_READ)
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        stack.callback(self._close, stopper)

    def tcp(self, namespace: Namespace, address: str, port: int) -> None:
        """Listen."""
        listener = namespace.socket(_family(address), socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        self._add(listener)

    def udp(self, namespace: Namespace, address: str, port: int) -> None:
        """Answer datagrams, and remember them in ``datagrams``."""
        server = namespace.socket(_family(address), socket.SOCK_DGRAM)
        server.bind((address, port))
        self._add(server)

    def _add(self, server: socket.socket) -> None:
        self._sockets.append(server)
        self._selector.register(server, selectors.EVENT_READ)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select(0.05):
                if key.fileobj == self._stop:
                    return
                server = key.fileobj
                assert isinstance(server, socket.socket)
                if server.type == socket.SOCK_DGRAM:
                    data, peer = server.recvfrom(2000)
                    self.datagrams.append((peer[0], data))
                    with contextlib.suppress(OSError):
                        server.sendto(peer[0].encode(), peer)
                else:
                    client, peer = server.accept()
                    with client, contextlib.suppress(OSError):
                        client.sendall(peer[0].encode())

    def _close(self, stopper: int) -> None:
        os.write(stopper, b"x")
        self._thread.join()
        for one in self._sockets:
            one.close()
        self._selector.close()
        os.close(stopper)
        os.close(self._stop)


class MemoryLedger:
    """A ledger that forgets."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str, str], Handle] = {}

    def all(self) -> list[Handle]:
        """What all VMs hold."""
        return list(self.entries.values())

    def of_vm(self, vm_id: str) -> VmPart:
        """One VM's part."""
        return VmPart(self, vm_id)


class VmPart:
    """Implements ``VmLedger``."""

    def __init__(self, ledger: MemoryLedger, vm_id: str) -> None:
        self._ledger, self._vm_id = ledger, vm_id

    def intend(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        self._ledger.entries[self._vm_id, kind, key] = Handle(self._vm_id, kind, key, "intended", detail or {})

    def activate(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        self._ledger.entries[self._vm_id, kind, key] = Handle(self._vm_id, kind, key, "active", detail or {})

    def strike(self, kind: str, key: str | None = None) -> None:
        for own in [own for own in self._ledger.entries if own[:2] == (self._vm_id, kind) and key in (None, own[2])]:
            del self._ledger.entries[own]

    def of(self, kind: str | None = None) -> list[Handle]:
        return [one for one in self._ledger.all() if one.vm_id == self._vm_id and kind in (None, one.kind)]


class Guest:
    """A namespace whose ``eth0`` is joined to a tap of the host, in the place of a VMM and its machine."""

    def __init__(self, stack: ExitStack, host: Namespace, given: Contribution) -> None:
        (nic,) = given.devices
        assert isinstance(nic, TapNic)
        assert given.network
        self.given, self.tap, self.mac = given, nic.tap, nic.mac
        self.namespace = Namespace(stack)
        self._ends = (_open_tap(host, self.tap), _open_tap(self.namespace, "eth0"))
        self._stop, stopper = os.pipe()
        pump = threading.Thread(target=self._pump)
        pump.start()
        stack.callback(self._close, pump, stopper)
        self._configure()

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        assert self.given.network
        return self.given.network.address.partition("/")[0]

    @property
    def address6(self) -> str:
        """Its IPv6 address."""
        assert self.given.network
        return self.given.network.address6.partition("/")[0]

    @property
    def gateway(self) -> str:
        """The host, as it sees it."""
        assert self.given.network
        return self.given.network.gateway

    def _configure(self) -> None:
        network = self.given.network
        assert network
        self.namespace.run(
            f"ip link set eth0 address {self.mac} mtu {network.mtu} && ip link set eth0 up"
            f" && ip addr add {network.address} dev eth0 && ip route add default via {network.gateway}"
        )
        if network.address6:
            self.namespace.run(
                f"ip addr add {network.address6} dev eth0 nodad && ip -6 route add default via {network.gateway6}"
            )

    def _pump(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ)
            for one, other in (self._ends, self._ends[::-1]):
                selector.register(one, selectors.EVENT_READ, other)
            while True:
                for key, _ in selector.select():
                    if key.fd == self._stop:
                        return
                    try:
                        os.write(key.data, os.read(key.fd, 65536))
                    except OSError:  # the tap is down, or was deleted
                        if key.fd in self._ends and not _is_attached(key.fd):
                            return

    def _close(self, pump: threading.Thread, stopper: int) -> None:
        os.write(stopper, b"x")
        pump.join()
        for end in (*self._ends, stopper, self._stop):
            os.close(end)


def address_of(given: Contribution) -> str:
    """The IPv4 address that a VM was given."""
    assert given.network is not None
    return given.network.address.partition("/")[0]


class Lab:
    """A host with an uplink to a world of servers, and one installation on it."""

    own = INSTALLATION

    def __init__(self, stack: ExitStack, directory: Path, *, bridge_netfilter: bool) -> None:
        self.stack, self._directory, self.state_file = stack, directory, directory / "network.json"
        self.host, self.world = Namespace(stack), Namespace(stack)
        self.servers = Servers(stack)
        self.resolver: Resolver | None = None
        self._connect()
        self.host.run(f"sysctl -qw net.bridge.bridge-nf-call-iptables={int(bridge_netfilter)}", check=bridge_netfilter)
        self.ledgers = {self.own: MemoryLedger(), OTHER_INSTALLATION: MemoryLedger()}
        self.network = self.installation(self.own)

    def _connect(self) -> None:
        self.host.run(f"ip link add up0 type veth peer name eth0 netns {self.world.pid}; ip link set up0 up")
        self.world.run("ip link set eth0 up")
        self.host.run(
            f"ip addr add {HOST}/24 dev up0; ip addr add {HOST6}/64 dev up0 nodad;ip route add default via {WORLD}"
        )
        self.world.run(
            f"ip addr add {WORLD}/24 dev eth0; ip addr add {WORLD6}/64 dev eth0 nodad;"
            f"for one in {SERVER} {OTHER_SERVER} {PRIVATE_SERVER} {METADATA}; do ip addr add $one/32 dev lo; done;"
            f"ip addr add {SERVER6}/128 dev lo nodad"
        )
        self.host.run(f"ip -6 route add default via {WORLD6}")
        for address in (SERVER, OTHER_SERVER, PRIVATE_SERVER, METADATA, SERVER6):
            self.servers.tcp(self.world, address, 80)
        for address in (SERVER, SERVER6):
            self.servers.udp(self.world, address, 5000)

    def installation(self, installation_id: str, **settings: Any) -> TapNetwork:
        """A tap network with a ledger that a second one of the same id shares, as after a restart of the daemon."""
        return TapNetwork(
            installation_id,
            self.place(installation_id),
            self.ledgers[installation_id].all,
            Publisher(Forwarders(installation_id, self.reach), lambda _: {}, Doorbells(lambda _: None)),
            TapSettings(**settings),
            lambda gateway: self.resolver,
        )

    def place(self, installation_id: str) -> Place:
        """Where its taps are made."""
        return HostPlace(self.state_file if installation_id == self.own else self._directory / "other.json")

    @property
    def taps(self) -> Namespace:
        """The same as a namespace."""
        return self.host

    def prepare(self, vm: Vm, network: TapNetwork | None = None, installation: str = "") -> Contribution:
        """As a VM's owner does it."""
        with self.host.entered():
            part = self.ledgers[installation or self.own].of_vm(vm.id)
            return (network or self.network).prepare(vm, None, part, operation())  # type: ignore[arg-type]

    def guest(self, number: int, **spec: Any) -> Guest:
        """A VM that runs."""
        vm = make_vm(number, network=self.network.name, **spec)
        guest = self.joined(vm)
        if vm.spec.ports:
            place = self.reach(vm).path.parent
            place.mkdir()
            self.stack.callback(RunningAgent(place, "-p", guest.namespace.entered).close)
        return guest

    def reach(self, vm: Vm) -> Reach:
        """Where the guest's agent is."""
        place = self._directory / vm.id
        return Reach(place / "ga.sock", 0, self._directory / f"{vm.id}.log")

    def joined(self, vm: Vm) -> Guest:
        """A guest at the tap that is made for this VM."""
        given = self.prepare(vm)
        return Guest(self.stack, self.taps, given)

    def clean(self, *vms: Vm, network: TapNetwork | None = None, installation: str = "") -> None:
        """As a VM's owner does it after the VMM is gone."""
        for vm in vms:
            with self.host.entered():
                run_all((network or self.network).cleanup(vm, self.ledgers[installation or self.own].of_vm(vm.id)))

    def refresh(self, *vms: Vm) -> None:
        """The tick."""
        with self.host.entered():
            self.network.refresh(vms)

    def bridge_mac(self) -> str:
        """The card of the host as guests see it."""
        return self.host.run(f"ip -o link show {bridge_name(INSTALLATION)}").partition("link/ether ")[2].split()[0]

    def objects(self, network: TapNetwork | None = None) -> list[tuple[str, str, str]]:
        """What is on the host: kind, key, VM."""
        with self.host.entered():
            return [(one.kind, one.key, one.vm_id) for one in (network or self.network).host_objects()]


def make_vm(number: int, network: str = "tap", **spec: Any) -> Vm:
    """A VM whose id begins with its number."""
    from banger.core import clock

    identity = f"{number:x}" * 12
    wish = VmSpec(image="debian", network=network, **spec)
    return Vm(identity[:12], f"vm{number}", wish, VmState.STARTING, clock.now())


def operation() -> Operation:
    """A start."""
    return Operation("vm.start", "vm")


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _open_tap(namespace: Namespace, name: str) -> int:
    with namespace.entered():
        handle = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return handle


def _is_attached(handle: int) -> bool:
    try:
        fcntl.ioctl(handle, 0x800454D2, bytearray(40))  # TUNGETIFF
    except OSError:
        return False
    return True


def _setns(handle: int) -> None:
    if _libc.setns(handle, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
