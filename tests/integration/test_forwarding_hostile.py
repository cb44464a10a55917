"""The forwarder when its guest's agent lies, stalls, floods, dies or is not there: played by this test."""

from __future__ import annotations

import resource
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from banger.agent.messages import Result, Status
from banger.agent.wire import (
    HELLO_BYTES,
    MAGIC,
    MAX_DIALS,
    MAX_PAYLOAD,
    NO_NONCE,
    PROTOCOL,
    Flag,
    Frame,
    FrameDecoder,
    Hello,
    Kind,
    Welcome,
)
from banger.core.names import PORTS_LOG_PREFIX
from tests.support.forwarder_lab import ForwarderLab, connect, forwarder_lab, received, resident_kib

TAG = 0x01020304
WELCOME = Welcome(NO_NONCE, PROTOCOL, PROTOCOL, PROTOCOL, 0, TAG, 0, secrets.token_bytes(16), "test", MAX_DIALS, 0)


class Guest:
    """The guest's end of one connection of the forwarder's."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        self.connection = connection
        self._decoder = FrameDecoder(TAG, from_agent=False)
        self._frames: list[Frame] = []
        self._raw = b""
        self._welcome: dict[str, object] = {}

    def meet(self, **changes: object) -> Guest:
        """Answer the greeting, with a WELCOME changed like this; and those after it, which a slow answer brings."""
        self._welcome = changes
        while not self._greeted():
            self._raw += self.connection.recv(65536)
        return self

    def _greeted(self) -> bool:
        start = self._raw.find(MAGIC)
        if start < 0 or len(self._raw) < start + HELLO_BYTES:
            return False
        nonce = Hello.decode(self._raw[start : start + HELLO_BYTES]).nonce
        self._raw = self._raw[start + HELLO_BYTES :]
        self.connection.sendall(WELCOME._replace(**{"nonce": nonce, **self._welcome}).encode())  # type: ignore[arg-type]
        return True

    def send(self, stream: int, kind: Kind, payload: bytes = b"", flags: Flag = Flag.NONE) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # whose session has ended for what was sent before
            self.connection.sendall(Frame(stream, kind, flags, payload).encode(TAG))

    def expect(self, kind: Kind) -> Frame:
        """The next frame of that kind; credit passes by."""
        while True:
            while not self._frames:
                self._frames = self.heard()
            frame = self._frames.pop(0)
            if frame.kind is kind:
                return frame
            assert frame.kind is Kind.CREDIT, frame

    def heard(self) -> list[Frame]:
        """What has come; waits for something."""
        frames, self._frames = self._frames, []
        if not frames:
            self._raw += self.connection.recv(65536)
        while self._raw.startswith(bytes(16)) and self._greeted():
            pass
        if not self._raw.startswith(bytes(16)):
            frames += self._decoder.feed(self._raw)
            self._raw = b""
        return frames

    def opened(self) -> int:
        """Take a connection; its stream."""
        stream = self.expect(Kind.OPEN).stream
        self.send(stream, Kind.STARTED)
        return stream

    def finish(self, stream: int, status: Status = Status.OK) -> None:
        self.send(stream, Kind.RESULT, Result(status).encode())

    def is_left(self) -> bool:
        """The forwarder has closed the connection."""
        try:
            while self.connection.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


class Lab(ForwarderLab):
    """A forwarder, and the socket that it reaches its guest by."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        super().__init__(stack, directory)
        self._listener = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        self._listener.settimeout(20)
        self._stack = stack

    def guest(self) -> Guest:
        """Who the forwarder connects to next."""
        return Guest(self._stack.enter_context(closing(self._listener.accept()[0])))

    def client(self, place: tuple[str, int]) -> socket.socket:
        return self._stack.enter_context(closing(connect(place)))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with forwarder_lab(tmp_path, Lab) as made:
        yield made


def was_reset(client: socket.socket) -> bool:
    try:
        return received(client) is None
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "lie",
    [
        lambda guest, stream: guest.connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10),
        lambda guest, stream: guest.send(stream + 99, Kind.DATA, b"for a stream that nobody opened"),
        lambda guest, stream: guest.send(stream, Kind.STARTED),
        lambda guest, stream: guest.send(stream, Kind.DATA),
        lambda guest, stream: [guest.send(stream, Kind.DATA, bytes(MAX_PAYLOAD)) for _ in range(2)],
        lambda guest, stream: [guest.send(stream, Kind.DATA, b"", Flag.END), guest.send(stream, Kind.DATA, b"more")],
        lambda guest, stream: [guest.finish(stream), guest.finish(stream)],
        lambda guest, stream: guest.send(stream, Kind.CREDIT, b"\xff\xff\xff\xff"),
        lambda guest, stream: guest.send(0, Kind.PONG, b"nobody asked"),
        lambda guest, stream: guest.send(stream, Kind.RESULT, bytes(12)),
        lambda guest, stream: guest.connection.sendall(WELCOME._replace(protocol=0, tag=0, reason=1).encode()),
        lambda guest, stream: guest.connection.close(),
    ],
    ids=["no-frames", "foreign-stream", "started-twice", "no-bytes", "beyond-credit", "after-the-end", "two-results",
         "much-credit", "unasked", "no-result", "began-anew", "closed"],
)  # fmt: skip
def test_guest_that_breaks_the_rules_loses_its_session_and_is_greeted_again_for_the_next_client(
    lab: Lab, lie: Callable[[Guest, int], object]
) -> None:
    place = lab.publish(80)
    first, other = lab.client(place), lab.client(place)
    guest = lab.guest().meet()
    streams = [guest.opened(), guest.opened()]
    lie(guest, streams[0])
    assert was_reset(other)
    first.close()

    after = lab.client(place)
    again = lab.guest().meet()
    stream = again.opened()
    again.send(stream, Kind.DATA, b"as ever", Flag.END)
    assert received(after) == b"as ever"
    assert PORTS_LOG_PREFIX in lab.words


@pytest.mark.parametrize(
    "changes", [{"protocol": 0, "tag": 0, "lowest": 7, "highest": 9}, {"most_streams": 0}], ids=["protocol", "streams"]
)
def test_agent_that_serves_nobody_resets_the_client_and_the_reason_is_in_the_log(
    lab: Lab, changes: dict[str, int]
) -> None:
    client = lab.client(lab.publish(80))
    lab.guest().meet(**changes)
    assert was_reset(client)
    assert ("protocols 7 to 9" if "protocol" in changes else "serves no requests") in lab.words


def test_guest_without_an_agent_resets_the_client_says_so_once_and_serves_the_next_when_it_is_back(lab: Lab) -> None:
    lab.patience_s = 0.5
    place = lab.publish(80)
    clients = [lab.client(place) for _ in range(3)]
    guest = lab.guest()  # which says nothing
    assert all(was_reset(client) for client in clients)
    assert lab.words.count("has not answered for") == 1

    client = lab.client(place)
    guest.meet()
    stream = guest.opened()
    guest.send(stream, Kind.DATA, b"here", Flag.END)
    assert received(client) == b"here"
    assert "the guest's agent answers" in lab.words


def test_connections_outlast_a_guest_that_stands_still(lab: Lab) -> None:
    lab.patience_s = 0.5
    place = lab.publish(80)
    old = lab.client(place)
    guest = lab.guest().meet()
    stream = guest.opened()
    old.sendall(b"before")
    assert guest.expect(Kind.DATA).payload == b"before"
    assert was_reset(lab.client(place)), "a new one is not answered in time"
    guest.send(stream, Kind.DATA, b"after")
    assert old.recv(5) == b"after"
    late = guest.expect(Kind.OPEN).stream
    assert guest.expect(Kind.CANCEL).stream == late


def test_guest_that_reads_nothing_holds_clients_up_and_no_memory(lab: Lab) -> None:
    place = lab.publish(80)
    clients = [lab.client(place) for _ in range(6)]
    guest = lab.guest().meet()
    for _ in clients:
        stream = guest.opened()
        guest.send(stream, Kind.CREDIT, (900_000).to_bytes(4, "little"))
    sent = 0
    for client in clients:
        client.setblocking(False)
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            try:
                sent += client.send(bytes(1 << 16))
            except BlockingIOError:
                time.sleep(0.01)
    assert sent > 1 << 20, "the kernel takes that much"
    assert resident_kib(lab.identity.pid) < 20 * 1024


def test_guest_that_floods_clients_which_do_not_read_costs_no_more_than_its_windows(lab: Lab) -> None:
    place = lab.publish(80)
    clients = [lab.client(place) for _ in range(10)]
    guest = lab.guest().meet()
    before = resident_kib(lab.identity.pid)
    credit = {guest.opened(): 16 << 10 for _ in clients}
    guest.connection.settimeout(1)
    sent = 0
    with suppress(TimeoutError):  # no more credit comes
        while True:
            for stream, left in credit.items():
                for start in range(0, left, MAX_PAYLOAD):
                    guest.send(stream, Kind.DATA, bytes(min(MAX_PAYLOAD, left - start)))
                sent += left
                credit[stream] = 0
            for frame in guest.heard():
                if frame.stream:
                    credit[frame.stream] += int.from_bytes(frame.payload, "little")
    assert sent > 4 << 20, "the kernel takes that much"
    assert resident_kib(lab.identity.pid) - before < 8 * 1024


def test_streams_of_clients_that_left_are_cancelled_and_their_numbers_free_once_that_is_answered(lab: Lab) -> None:
    place = lab.publish(80)
    guest_of: list[Guest] = []
    for _ in range(50):
        client = connect(place)
        if not guest_of:
            guest_of.append(lab.guest().meet())
        stream = guest_of[0].opened()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert guest_of[0].expect(Kind.CANCEL).stream == stream
        guest_of[0].finish(stream, Status.CANCELLED)
    client = lab.client(place)
    stream = guest_of[0].opened()
    guest_of[0].send(stream, Kind.DATA, b"still", Flag.END)
    assert received(client) == b"still"


def test_vmm_is_asked_for_the_ports_channel_where_that_is_how_a_guest_is_reached(lab: Lab) -> None:
    """Firecracker: a line to its socket, and a line from it, before the guest's own bytes."""
    lab.vsock_port = 1025
    client = lab.client(lab.publish(80))
    guest = lab.guest()
    assert guest.connection.recv(100) == b"CONNECT 1025\n"
    guest.connection.sendall(b"OK 1073")
    guest.connection.sendall(b"741824\n")
    guest.meet()
    guest.send(guest.opened(), Kind.DATA, b"over vsock", Flag.END)
    assert received(client) == b"over vsock"

    refused = lab.client(lab.publish(81))
    guest = lab.guest()
    guest.connection.close()  # nobody listens in the guest: it still boots
    assert was_reset(refused)


def test_forwarder_without_a_descriptor_left_resets_clients_and_goes_on_when_it_has_some(lab: Lab) -> None:
    place = lab.publish(80)
    pid = lab.identity.pid
    client = lab.client(place)
    guest = lab.guest()
    guest.connection.close()
    assert was_reset(client)  # it has begun, and has no way to its guest now
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    _, second = sorted(set(range(len(used) + 2)) - used)[:2]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (second, limit[1]))  # one for the client, none for the way
    assert was_reset(lab.client(place))
    assert "Too many open files" in lab.words
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    client = lab.client(place)
    guest = lab.guest().meet()
    guest.send(guest.opened(), Kind.DATA, b"again", Flag.END)
    assert received(client) == b"again"
