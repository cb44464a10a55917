"""The two ways out of a VM without a tap of the host's: the network ``user`` (pasta), and QEMU's own stack (slirp).

Both VMs run at the same time, of the same image and kernel, on a host of its own: a network namespace that a pair of
interfaces joins to a world with a server. Their guests take turns.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from banger.sdk import Banger, Machine
from bench.measure import Comparison, interleaved
from tests.support.daemon import BangerHome, banger_home
from tests.support.images import busybox_rootfs
from tests.support.netlab import SERVER, Lab

NETWORKS = ("user", "slirp")
IMAGE, MEMORY_MIB = "measured", 256
#: Bytes that go through in one run, either way, and bytes that go there and back, one at a time.
BULK_BYTES, PINGS = 16 << 20, 200
#: What is measured, and the server's port for it.
_PORTS = {"out of": 7001, "into": 7002, "there and back": 7003}
_PIECE_BYTES = 1 << 20
_TIMEOUT_S = 120.0
_WOKEN_TWICE_MS = 0.3


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Bulk data out of the guest and into it, which may not be slower than on slirp, and the round trip of a byte.

    That cannot be as short: pasta is a process of its own, woken once in either direction, and slirp a part of QEMU.
    What is allowed for it is what two such wakes take on a virtual host.
    """
    with ExitStack() as stack:
        place = root / "uplinks"
        place.mkdir()
        home = stack.enter_context(banger_home(root))
        _prepare(home, root)
        lab = Lab(stack, place, bridge_netfilter=False)
        pool = stack.enter_context(ThreadPoolExecutor())
        listeners = {what: stack.enter_context(_listener(lab, port)) for what, port in _PORTS.items()}
        with lab.host.entered():  # so is the daemon that this starts
            for network in NETWORKS:
                options = ("--network", network, "--egress", "open", "--memory", f"{MEMORY_MIB}M")
                home.run("vm", "run", "--detach", "--name", network, "--vmm", "qemu", *options, IMAGE).ok()
        machines = {network: Banger(home.path).vms.get(network) for network in NETWORKS}
        medians = interleaved(
            {
                f"{what} {network}": _side(pool, listeners[what], machine, what)
                for what in _PORTS
                for network, machine in machines.items()
            },
            rounds,
        )
    for what in ("out of", "into"):
        name = f"{BULK_BYTES >> 20} MiB {what} a guest, pasta vs slirp"
        yield Comparison(name, medians[f"{what} user"], medians[f"{what} slirp"], 1.0)
    name = "a byte into a guest and back, pasta vs slirp"
    ours, peer = (medians[f"there and back {network}"] * 1e3 for network in NETWORKS)
    yield Comparison(name, ours, peer, _WOKEN_TWICE_MS, limit_is_difference=True, unit="ms")


def _prepare(home: BangerHome, root: Path) -> None:
    """An image and a kernel, while the daemon still sees the network of this machine."""
    home.run("image", "register", "--rootfs", str(busybox_rootfs(root / "uplinks.ext4")), "--name", IMAGE).ok()
    home.run("kernel", "pull", "debian-cloud").ok()
    home.run("daemon", "stop").ok()


def _listener(lab: Lab, port: int) -> socket.socket:
    listener = lab.world.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.settimeout(_TIMEOUT_S)
    listener.bind((SERVER, port))
    listener.listen()
    return listener


def _side(pool: ThreadPoolExecutor, listener: socket.socket, machine: Machine, what: str) -> Callable[[], float]:
    serve, program = _WORK[what]
    argv = ["nc", SERVER, str(_PORTS[what]), "-e", *program]

    def side() -> float:
        served = pool.submit(serve, listener)
        ended = machine.exec(argv, timeout_s=_TIMEOUT_S)
        took = served.result()
        ended.check()
        return took

    return side


def _take(guest: socket.socket) -> float:
    """All that the guest sends: from its connection to its end."""
    begun, taken = time.perf_counter(), 0
    while data := guest.recv(_PIECE_BYTES):
        taken += len(data)
    _check(taken)
    return time.perf_counter() - begun


def _give(guest: socket.socket) -> float:
    """As much to the guest, which says how much has come when all has."""
    begun, piece = time.perf_counter(), bytes(_PIECE_BYTES)
    for _ in range(BULK_BYTES // _PIECE_BYTES):
        guest.sendall(piece)
    guest.shutdown(socket.SHUT_WR)
    _check(int(guest.recv(100)))
    return time.perf_counter() - begun


def _ping(guest: socket.socket) -> float:
    """The median of many."""
    guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(PINGS):
        begun = time.perf_counter()
        guest.sendall(b"x")
        guest.recv(1)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _check(came: int) -> None:
    if came != BULK_BYTES:
        raise RuntimeError(f"{came} of {BULK_BYTES} bytes came through")


def _served(work: Callable[[socket.socket], float]) -> Callable[[socket.socket], float]:
    """The same for the next one who connects."""

    def serve(listener: socket.socket) -> float:
        guest, _ = listener.accept()
        with guest:
            guest.settimeout(_TIMEOUT_S)
            return work(guest)

    return serve


#: What the server does, and the program that the guest joins to the connection.
_WORK: Mapping[str, tuple[Callable[[socket.socket], float], Sequence[str]]] = {
    "out of": (_served(_take), ("head", "-c", str(BULK_BYTES), "/dev/zero")),
    "into": (_served(_give), ("wc", "-c")),
    "there and back": (_served(_ping), ("cat",)),
}
