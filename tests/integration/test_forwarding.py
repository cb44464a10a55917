"""The real forwarder process and the real agent, between sockets of this host that are clients and a guest's servers."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from banger.core.wire.port_forward import PortForward
from banger.forwarding.datagrams import MOST_SENDERS
from banger.forwarding.forwarders import FORWARDER_KIND, Forwarders, Opened
from banger.forwarding.host_ports import bound_ports
from banger.vmm import identity as processes
from tests.support.agent_world import RunningAgent, needs_agent
from tests.support.forwarder_lab import (
    INSTALLATION,
    ForwarderLab,
    connect,
    forwarder_lab,
    received,
    resident_kib,
)
from tests.support.guest_server import GuestServer
from tests.support.needs import needs_descriptors, needs_ipv6
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = needs_agent


class Lab(ForwarderLab):
    """The guest is this host: its agent, and its servers."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        super().__init__(stack, directory)
        self._stack = stack
        self.agent = RunningAgent(directory, "-p")
        stack.callback(self.agent.close)

    def serve(self, guest: Callable[[socket.socket], None], address: str = "127.0.0.1") -> int:
        """Have a server in the guest; its port."""
        server = GuestServer(guest, address)
        self._stack.callback(server.close)
        return server.port


@pytest.fixture
def lab(tmp_path):
    with forwarder_lab(tmp_path, Lab) as made:
        yield made


def is_reset(place: tuple[str, int], first: bytes = b"") -> bool:
    """Whoever connects there, and says something, is reset; False for an end in order."""
    with closing(connect(place)) as stream:
        try:
            stream.sendall(first)
            received(stream)
        except (ConnectionResetError, BrokenPipeError):
            return True
        return False


def echo(stream: socket.socket) -> None:
    while data := stream.recv(65536):
        stream.sendall(data)


def sha_after_end(stream: socket.socket) -> None:
    """Answers only once the other side has said that it is done: what half-closing is for."""
    stream.sendall(hashlib.sha256(received(stream)).hexdigest().encode())


# -- refused or served ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.0\r\n\r\n"])
def test_port_on_which_nobody_listens_in_the_guest_is_reset(lab, first):
    assert is_reset(lab.publish(free_port()), first)


def test_server_that_takes_a_request_and_says_nothing_ends_in_order(lab):
    with closing(connect(lab.publish(lab.serve(lambda stream: stream.recv(100))))) as stream:
        stream.sendall(b"quit\n")
        assert received(stream) == b""


def test_server_that_closes_at_once_is_told_from_a_closed_port(lab):
    assert not is_reset(lab.publish(lab.serve(lambda stream: None)))


def test_server_that_speaks_first_and_closes_is_heard_to_the_end(lab):
    with closing(connect(lab.publish(lab.serve(lambda stream: stream.sendall(b"220 ready\r\n"))))) as stream:
        assert received(stream) == b"220 ready\r\n"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "0.0.0.0", pytest.param("::", marks=needs_ipv6), pytest.param("::1", marks=needs_ipv6)]
)
def test_server_is_reached_whatever_address_of_the_guest_it_listens_at(lab, address):
    with closing(connect(lab.publish(lab.serve(lambda stream: stream.sendall(b"here"), address)))) as stream:
        assert received(stream) == b"here"


def test_server_does_not_take_who_comes_from_outside_for_a_program_of_its_own_machine(lab):
    """CVE-2021-20199: what trusts loopback, as PostgreSQL's images do, needs no password then."""
    if not own_address():
        pytest.skip("this host has no address besides loopback")
    for address in ("0.0.0.0", "127.0.0.1"):
        port = lab.serve(lambda stream: stream.sendall(stream.getpeername()[0].encode()), address)
        with closing(connect(lab.publish(port))) as stream:
            assert not received(stream).startswith(b"127.")


def own_address() -> str:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return ""


# -- data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_data_passes_whole_and_each_side_ends_by_itself(lab, address):
    data = os.urandom(3 << 20)
    with closing(connect(lab.publish(lab.serve(sha_after_end), address))) as stream:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        assert received(stream).decode() == hashlib.sha256(data).hexdigest()


def test_guest_that_ends_first_is_still_sent_to(lab):
    got = []

    def guest(stream):
        stream.sendall(b"first")
        stream.shutdown(socket.SHUT_WR)
        got.append(received(stream))

    with closing(connect(lab.publish(lab.serve(guest)))) as stream:
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

    with closing(connect(lab.publish(lab.serve(guest)))) as stream:
        stream.recv(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: seen == ["reset"], what="the guest sees the reset")


def test_reset_of_one_connection_is_nobody_elses(lab):
    """kubectl's port-forward ends with it (kubernetes #74551, #111825): they share what carries them."""

    def guest(stream):
        if stream.recv(10) == b"reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            echo(stream)

    place = lab.publish(lab.serve(guest))
    with closing(connect(place)) as calm:
        calm.sendall(b"begin")
        for _ in range(20):
            assert is_reset(place, b"reset")
        calm.sendall(b"as ever")
        assert calm.recv(10) == b"as ever"


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

    place = lab.publish(lab.serve(flood))
    with closing(connect(place)) as lazy, closing(connect(place)):
        lazy.recv(1)
        stuck = []
        eventually(lambda: stuck.append(sent[0]) or (len(stuck) > 3 and stuck[-1] == stuck[-3]), what="it is held up")
        assert sent[0] < 64 << 20
        assert resident_kib(lab.identity.pid) < 20 * 1024


@needs_descriptors(2048)
def test_hundreds_of_connections_at_a_time_are_served_side_by_side(lab):
    place = lab.publish(lab.serve(echo))
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(connect(place))) for _ in range(200)]
        for number, stream in enumerate(streams):
            stream.sendall(b"%d" % number)
        assert [stream.recv(10) for stream in streams] == [b"%d" % number for number in range(200)]


def test_connections_leave_nothing_behind_however_they_end(lab):
    """A slot or a descriptor that is lost per connection ends a forwarder after a day of health checks."""
    place = lab.publish(lab.serve(lambda stream: stream.sendall(stream.recv(10))))
    with closing(connect(place)) as stream:
        stream.sendall(b"x")
        assert stream.recv(10) == b"x"
        before = descriptors(lab.identity.pid) - 1
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
    eventually(lambda: sockets(lab.agent.processes[0].pid) == 1, what="in the guest, too, but for its channel")
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

    with closing(connect(lab.publish(lab.serve(silent)))) as stream:
        stream.shutdown(socket.SHUT_WR)
        assert heard.wait(10)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert released.wait(10)


def sockets(pid: int) -> int:
    return sum(str(path.readlink()).startswith("socket:") for path in Path(f"/proc/{pid}/fd").iterdir())


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# -- datagrams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "asked"),
    [("127.0.0.1", "127.0.0.1"), pytest.param("::1", "::1", marks=needs_ipv6), ("0.0.0.0", "127.0.0.9")],
)
def test_datagrams_are_answered_to_their_senders_from_the_address_they_asked(lab, address, asked):
    with ExitStack() as stack:
        _, port = lab.publish(stack.enter_context(answering("127.0.0.1")), address, "udp")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        clients = [stack.enter_context(closing(socket.socket(family, socket.SOCK_DGRAM))) for _ in range(2)]
        for client in clients:
            client.settimeout(10)
            client.connect((asked, port))  # hears that address only
        for data in (b"", b"short", os.urandom(9000), os.urandom(65000), b"again"):
            for client in clients:
                client.send(data)
                assert client.recv(65536) == data


@pytest.mark.parametrize(
    "address", ["0.0.0.0", pytest.param("::", marks=needs_ipv6), pytest.param("::1", marks=needs_ipv6)]
)
def test_datagrams_find_the_server_whatever_address_it_has_and_one_that_comes_later(lab, address):
    port = free_port()
    place = lab.publish(port, protocol="udp")
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(0.2)
        client.connect(place)
        client.send(b"nobody is there yet")
        with pytest.raises(TimeoutError):
            client.recv(100)
        for where in (address, "127.0.0.1", address):  # it ends, and comes back
            with answering(where, port):
                eventually(lambda: asked(client, b"hello") == b"hello", what=f"the server is found at {where}")


def test_senders_of_datagrams_are_forgotten_the_most_silent_first(lab):
    """A scan of the port, or a client that takes another port each time, must not fill the guest's table of sockets."""
    with ExitStack() as stack:
        place = lab.publish(stack.enter_context(answering("127.0.0.1")), protocol="udp")
        first = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        first.settimeout(10)
        first.connect(place)
        for _ in range(MOST_SENDERS + 100):
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
                client.settimeout(10)
                client.connect(place)
                client.send(b"x")
                assert client.recv(10) == b"x"
        eventually(lambda: sockets(lab.agent.processes[0].pid) <= MOST_SENDERS + 1, what="sockets are closed")
        assert resident_kib(lab.identity.pid) < 20 * 1024
        first.send(b"again")
        assert first.recv(10) == b"again"


def asked(client: socket.socket, words: bytes) -> bytes:
    with suppress(TimeoutError):
        client.send(words)
        return client.recv(100)
    return b""


@contextmanager
def answering(address: str, port: int = 0) -> Iterator[int]:
    """A server in the guest that says what it hears; its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as guest:
        guest.bind((address, port))
        over = threading.Event()

        def answer() -> None:
            while not over.is_set():
                data, sender = guest.recvfrom(65536)
                guest.sendto(data, sender)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield guest.getsockname()[1]
        finally:
            over.set()
            with closing(socket.socket(family, socket.SOCK_DGRAM)) as last:
                last.sendto(b"", ("::1" if family == socket.AF_INET6 else "127.0.0.1", guest.getsockname()[1]))
            thread.join(10)


# -- its life -----------------------------------------------------------------------------------------------


def test_forwarder_outlives_its_daemon_and_ends_with_the_vmm(lab):
    place = lab.publish(lab.serve(echo))
    again = Forwarders(INSTALLATION, lab.reach)  # of the next daemon
    assert again.runs(lab.ledger)
    assert [one.vm_id for one in again.host_objects()] == [lab.vm.id]
    with closing(connect(place)) as stream:
        stream.sendall(b"hello")
        assert stream.recv(5) == b"hello"

    processes.kill(lab.vmm)

    eventually(lambda: not again.runs(lab.ledger), what="it is gone")
    with pytest.raises(ConnectionRefusedError):
        connect(place)


def test_end_of_a_forwarder_is_told_once_and_not_if_it_was_wanted(lab):
    lab.publish(80)
    lab.forwarders.end(lab.vm.id, lab.ledger)
    for _ in range(2):  # the second time it is left to the daemon's next look: something is wrong with it
        lab.publish(80)
        processes.kill(lab.identity)
        eventually(lambda: not lab.forwarders.runs(lab.ledger), what="it is gone")
    eventually(lambda: lab.lost == [lab.vm.id], what="it is told")


def test_forwarder_whose_start_is_given_up_ends_with_the_daemon_that_knew_of_it(lab):
    with bound_ports([PortForward(80)], {}) as bound:
        lab.forwarders.start(lab.vm, [Opened(bound[0][1], 80)], lab.ledger)
    assert lab.forwarders.runs(lab.ledger)
    os.close(lab.forwarders._pipe(lab.vm.id))  # as the kernel does it for a daemon that dies
    eventually(lambda: not lab.forwarders.runs(lab.ledger), what="it is gone")


def test_forwarder_that_was_intended_but_never_recorded_is_found_and_ended(lab):
    lab.publish(lab.serve(echo))
    identity = lab.identity
    lab.ledger.intend(FORWARDER_KIND, identity.marker)

    Forwarders(INSTALLATION, lab.reach).end(lab.vm.id, lab.ledger)

    assert not processes.is_same(identity)
    assert lab.ledger.of() == []


def test_leaving_without_a_ledger_entry_is_found_by_its_mark_and_taken_down(lab):
    lab.publish(lab.serve(echo))
    (left,) = Forwarders(INSTALLATION, lab.reach).host_objects()
    left.remove()
    eventually(lambda: not lab.forwarders.runs(lab.ledger), what="it is gone")
    assert Forwarders(INSTALLATION, lab.reach).host_objects() == []
