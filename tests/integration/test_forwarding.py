"""The real forwarder process, between real sockets of this host and stand-ins for a guest."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from banger.core.models import ProcessIdentity
from banger.core.names import new_id
from banger.core.wire.port_forward import PortForward
from banger.forwarding.forwarders import FORWARDER_KIND, Forwarders, Opened, Target
from banger.forwarding.host_ports import bound_ports
from banger.vmm import identity as processes
from tests.support.needs import needs_descriptors, needs_ipv6
from tests.support.netlab import MemoryLedger
from tests.support.slirp_like import SlirpLike
from tests.support.waiting import eventually

INSTALLATION = new_id()  # nobody else who runs these tests has the same


class Lab:
    """Forwarders with one VM each, and what their guests are."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.forwarders = Forwarders(INSTALLATION)
        self.vm_id = new_id()
        self.ledger = MemoryLedger().of_vm(self.vm_id)
        self.vmm = stack.enter_context(stand_in_vmm())
        stack.callback(lambda: self.forwarders.end(self.vm_id, self.ledger))

    def slirp(self, guest=None) -> Target:
        stand_in = SlirpLike(guest)
        self._stack.callback(stand_in.close)
        return Target("stack", stand_in.address, stand_in.port)

    def publish(self, target: Target, address: str = "127.0.0.1", protocol: str = "tcp") -> tuple[str, int]:
        with bound_ports([PortForward(80, 0, address, protocol)], {}) as bound:
            self.forwarders.start(self.vm_id, [Opened(bound[0][1], target)], self.ledger)
        self.forwarders.begin(self.vm_id, self.vmm)
        identity = self.identity  # between its fork and its exec, it has the command line of these tests
        eventually(lambda: processes.find(identity.marker) == identity, what="its own program runs")
        return address, bound[0][0].host_port

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(**self.ledger.of(FORWARDER_KIND)[0].detail)


@contextmanager
def stand_in_vmm() -> Iterator[ProcessIdentity]:
    """A process that lives as long as a VMM would."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield processes.identify(process.pid, "sleep")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def lab():
    with ExitStack() as stack:
        yield Lab(stack)


def connect(place: tuple[str, int]) -> socket.socket:
    return socket.create_connection(place, timeout=10)


def is_reset(place: tuple[str, int], first: bytes = b"") -> bool:
    """Whoever connects there, and says something, is reset; False for an end in order."""
    with closing(connect(place)) as stream:
        try:
            stream.sendall(first)
            received(stream)
        except (ConnectionResetError, BrokenPipeError):
            return True
        return False


def received(stream: socket.socket) -> bytes:
    data = bytearray()
    while chunk := stream.recv(65536):
        data += chunk
    return bytes(data)


def echo(stream: socket.socket) -> None:
    while data := stream.recv(65536):
        stream.sendall(data)


def sha_after_end(stream: socket.socket) -> None:
    """Answers only once the other side has said that it is done: what half-closing is for."""
    stream.sendall(hashlib.sha256(received(stream)).hexdigest().encode())


# -- refused or served ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.0\r\n\r\n"])
def test_port_on_which_nobody_listens_in_the_guest_is_reset(lab, first):
    assert is_reset(lab.publish(lab.slirp()), first)


def test_port_of_a_guest_whose_vmm_does_not_listen_yet_is_reset(lab):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        target = Target("stack", *free.getsockname())
    assert is_reset(lab.publish(target))


def test_server_that_takes_a_request_and_says_nothing_ends_in_order(lab):
    with closing(connect(lab.publish(lab.slirp(lambda stream: stream.recv(100))))) as stream:
        stream.sendall(b"quit\n")
        assert received(stream) == b""


def test_server_that_speaks_first_and_closes_is_heard_to_the_end(lab):
    with closing(connect(lab.publish(lab.slirp(lambda stream: stream.sendall(b"220 ready\r\n"))))) as stream:
        assert received(stream) == b"220 ready\r\n"


def test_direct_way_tells_refused_from_a_server_that_closes_at_once(lab):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        refusing = Target("direct", *free.getsockname())
    assert is_reset(lab.publish(refusing))
    closing_at_once = lab.slirp(lambda stream: None)
    assert not is_reset(lab.publish(Target("direct", closing_at_once.address, closing_at_once.port)))


# -- data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_data_passes_whole_and_each_side_ends_by_itself(lab, address):
    data = os.urandom(3 << 20)
    with closing(connect(lab.publish(lab.slirp(sha_after_end), address))) as stream:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        assert received(stream).decode() == hashlib.sha256(data).hexdigest()


def test_guest_that_ends_first_is_still_sent_to(lab):
    got = []

    def guest(stream):
        stream.sendall(b"first")
        stream.shutdown(socket.SHUT_WR)
        got.append(received(stream))

    with closing(connect(lab.publish(lab.slirp(guest)))) as stream:
        assert received(stream) == b"first"
        stream.sendall(b"and the rest")
    eventually(lambda: got == [b"and the rest"], what="the guest has heard all")


def test_reset_by_either_side_is_a_reset_for_the_other(lab):
    seen = []

    def guest(stream):
        stream.sendall(b"x")
        try:
            received(stream)
        except ConnectionResetError:
            seen.append("reset")

    with closing(connect(lab.publish(lab.slirp(guest)))) as stream:
        stream.recv(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: seen == ["reset"], what="the guest sees the reset")


def test_client_that_does_not_read_holds_up_the_guest_and_not_the_memory(lab):
    sent = [0]

    def flood(stream):
        stream.settimeout(1.0)
        chunk = bytes(1 << 16)
        try:
            while sent[0] < 256 << 20:
                sent[0] += stream.send(chunk)
        except TimeoutError:
            return

    place = lab.publish(lab.slirp(flood))
    with closing(connect(place)) as lazy, closing(connect(place)):
        lazy.recv(1)
        stuck = []
        eventually(lambda: stuck.append(sent[0]) or (len(stuck) > 3 and stuck[-1] == stuck[-3]), what="it is held up")
        assert sent[0] < 64 << 20
        assert resident_kib(lab.identity.pid) < 16 * 1024


@needs_descriptors(2048)
def test_hundreds_of_connections_at_a_time_are_served_side_by_side(lab):
    place = lab.publish(lab.slirp(echo))
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(connect(place))) for _ in range(200)]
        for number, stream in enumerate(streams):
            stream.sendall(b"%d" % number)
        assert [stream.recv(10) for stream in streams] == [b"%d" % number for number in range(200)]


def test_connections_leave_nothing_behind_however_they_end(lab):
    """A slot or a descriptor that is lost per connection ends a forwarder after a day of health checks."""
    place = lab.publish(lab.slirp(lambda stream: stream.sendall(stream.recv(10))))
    before = descriptors(lab.identity.pid)
    for number in range(1200):
        with closing(connect(place)) as stream:
            if number % 4 == 0:  # in order
                stream.sendall(b"x")
                assert stream.recv(10) == b"x"
            elif number % 4 == 1:  # the client aborts
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif number % 4 == 2:  # half closed, and gone
                stream.shutdown(socket.SHUT_WR)
    eventually(lambda: descriptors(lab.identity.pid) == before, what="every descriptor is closed")
    with closing(connect(place)) as stream:
        stream.sendall(b"x")
        assert stream.recv(10) == b"x"


def test_client_that_dies_after_ending_its_side_is_noticed_by_a_guest_that_says_nothing(lab):
    """A server that forgets to close would take a place for ever."""
    released = threading.Event()
    heard = threading.Event()

    def silent(stream):
        received(stream)
        heard.set()
        poll = select.poll()
        poll.register(stream, 0)  # a reset, and nothing else
        if poll.poll(10_000):
            released.set()

    with closing(connect(lab.publish(lab.slirp(silent)))) as stream:
        stream.shutdown(socket.SHUT_WR)
        assert heard.wait(10)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert released.wait(10)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")))


# -- datagrams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "asked"),
    [("127.0.0.1", "127.0.0.1"), pytest.param("::1", "::1", marks=needs_ipv6), ("0.0.0.0", "127.0.0.9")],
)
def test_datagrams_are_answered_to_their_senders_from_the_address_they_asked(lab, address, asked):
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as guest:
        guest.bind(("127.0.0.1", 0))
        _, port = lab.publish(Target("stack", *guest.getsockname()), address, "udp")
        threading.Thread(target=answer, args=(guest, 6), daemon=True).start()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with (
            closing(socket.socket(family, socket.SOCK_DGRAM)) as one,
            closing(socket.socket(family, socket.SOCK_DGRAM)) as two,
        ):
            for client in (one, two):
                client.settimeout(10)
                client.connect((asked, port))  # hears that address only
            for number in range(3):
                for client in (one, two):
                    client.send(b"%d" % number + bytes(9000))
                    assert client.recv(65536) == b"%d" % number + bytes(9000)


def answer(guest: socket.socket, count: int) -> None:
    for _ in range(count):
        data, sender = guest.recvfrom(65536)
        guest.sendto(data, sender)


# -- its life -----------------------------------------------------------------------------------------------


def test_forwarder_outlives_its_daemon_and_ends_with_the_vmm(lab):
    place = lab.publish(lab.slirp(echo))
    again = Forwarders(INSTALLATION)  # of the next daemon
    assert again.runs(lab.ledger)
    assert [one.vm_id for one in again.host_objects()] == [lab.vm_id]
    with closing(connect(place)) as stream:
        stream.sendall(b"hello")
        assert stream.recv(5) == b"hello"

    processes.kill(lab.vmm)

    eventually(lambda: not again.runs(lab.ledger), what="it is gone")
    with pytest.raises(ConnectionRefusedError):
        connect(place)


def test_forwarder_whose_start_is_given_up_ends_with_the_daemon_that_knew_of_it(lab):
    with bound_ports([PortForward(80)], {}) as bound:
        lab.forwarders.start(lab.vm_id, [Opened(bound[0][1], lab.slirp(echo))], lab.ledger)
    assert lab.forwarders.runs(lab.ledger)
    os.close(lab.forwarders._pipe(lab.vm_id))  # as the kernel does it for a daemon that dies
    eventually(lambda: not lab.forwarders.runs(lab.ledger), what="it is gone")


def test_forwarder_that_was_intended_but_never_recorded_is_found_and_ended(lab):
    lab.publish(lab.slirp(echo))
    identity = lab.identity
    lab.ledger.intend(FORWARDER_KIND, identity.marker)

    Forwarders(INSTALLATION).end(lab.vm_id, lab.ledger)

    assert not processes.is_same(identity)
    assert lab.ledger.of() == []


def test_leaving_without_a_ledger_entry_is_found_by_its_mark_and_taken_down(lab):
    lab.publish(lab.slirp(echo))
    (left,) = Forwarders(INSTALLATION).host_objects()
    left.remove()
    eventually(lambda: not lab.forwarders.runs(lab.ledger), what="it is gone")
    assert Forwarders(INSTALLATION).host_objects() == []
