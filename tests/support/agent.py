"""The guest agent's real program at the other end of a socket pair, and a host for it that does as it is told."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from banger.agent.messages import Exit, Op, Request, Result
from banger.agent.wire import Flag, Frame, Hello, HostDecoder, Kind, Welcome

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "guest-agent"
#: As scripts/setup.sh has built it.
PROGRAM = ROOT / "banger" / "guest" / "data" / "banger-agent"
#: What the process that waits for the next command is called.
SPARE = "banger-spare"
#: A window that no test fills.
PLENTY = 1 << 30
SESSION_WINDOW = 1 << 20


@dataclass
class Stream:
    """One request and what has come of it so far."""

    id: int
    runs: bool
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    input_credit: int = 65536
    most_credit: int = 65536
    started: bytes | None = None
    stopped: bool = False
    out_ended: bool = False
    result: Result | None = None

    @property
    def exit(self) -> Exit:
        """How the command ended; fails if it could not be run."""
        assert self.result is not None
        assert self.result.status == 0, self.result
        return Exit.decode(self.result.fields)


class Host:
    """The host's side of one channel, in the test's own thread. Gives back the session's credit, not that of streams."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.streams: dict[int, Stream] = {}
        self.session_credit = True
        self._next = 1
        self.welcome: Welcome | None = None
        self.tag = 0
        self.pongs: list[bytes] = []

    def greet(self, *, padded: bool = True, timeout_s: float = 10, window: int = SESSION_WINDOW) -> Welcome:
        """Begin a session; what the agent says before it is dropped."""
        nonce = os.urandom(16)
        self.decoder = HostDecoder(nonce)
        self.streams.clear()
        self._next = 1
        self.send_bytes(Hello(nonce, window).encode(padded=padded))
        self.wait(lambda: self.decoder.welcome is not None, timeout_s)
        self.welcome = self.decoder.welcome
        assert self.welcome is not None
        self.tag = self.welcome.tag
        return self.welcome

    def send_bytes(self, data: bytes) -> None:
        """Send anything; what comes meanwhile is taken, so that neither side waits for the other."""
        view = memoryview(data)
        while view:
            self._take(0)
            _, writable, _ = select.select([], [self.connection], [], 10)
            assert writable, "the agent does not read"
            view = view[self.connection.send(view) :]

    def send(self, stream: Stream | int, kind: Kind, payload: bytes = b"", flags: Flag = Flag.NONE) -> None:
        """Send one frame."""
        number = stream if isinstance(stream, int) else stream.id
        self.send_bytes(Frame(number, kind, flags, payload).encode(self.tag))

    def open(self, request: Request, window: int = PLENTY) -> Stream:
        """Begin a request."""
        stream = self.streams[self._next] = Stream(self._next, request.op in (Op.EXEC, Op.DIAL))
        self._next += 1
        self.send_bytes(b"".join(frame.encode(self.tag) for frame in request.frames(stream.id, window)))
        return stream

    def write(self, stream: Stream, data: bytes, *, end: bool = False) -> None:
        """Send input as its credit allows, and its end."""
        view = memoryview(data)
        while view and not stream.stopped and stream.result is None:
            self.wait(lambda: stream.input_credit > 0 or stream.stopped or stream.result is not None)
            piece = bytes(view[: min(stream.input_credit, 32000)])
            stream.input_credit -= len(piece)
            view = view[len(piece) :]
            self.send(stream, Kind.DATA, piece)
        if end and stream.result is None:
            self.send(stream, Kind.DATA, b"", Flag.END)

    def run(self, request: Request, stdin: bytes | None = None, timeout_s: float = 30) -> Stream:
        """A whole request."""
        stream = self.open(request)
        if stdin is not None:
            self.write(stream, stdin, end=True)
        return self.finish(stream, timeout_s)

    def finish(self, stream: Stream, timeout_s: float = 30) -> Stream:
        """Wait for the request's end."""
        self.wait(lambda: stream.result is not None, timeout_s)
        return stream

    def wait(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        """Take what comes until something is so."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not within {timeout_s} s: {self.streams}"[:2000]
            self._take(left)

    def _take(self, timeout_s: float) -> None:
        readable, _, _ = select.select([self.connection], [], [], timeout_s)
        if not readable:
            return
        data = self.connection.recv(1 << 18)
        assert data, "the agent has closed the channel"
        for frame in self.decoder.feed(data):
            self._heed(frame)

    def _heed(self, frame: Frame) -> None:
        if frame.kind is Kind.PONG:
            self.pongs.append(frame.payload)
            return
        stream = self.streams[frame.stream]
        assert stream.result is None, "RESULT is the last frame of a stream"
        if frame.kind is Kind.DATA:
            assert stream.started is not None or not stream.runs, "output comes after STARTED"
            (stream.err if frame.flags & Flag.ERR else stream.out).extend(frame.payload)
            stream.out_ended |= bool(frame.flags & Flag.END)
            if self.session_credit and frame.payload:
                self.send(0, Kind.CREDIT, struct.pack("<I", len(frame.payload)))
        elif frame.kind is Kind.CREDIT:
            stream.input_credit += struct.unpack("<I", frame.payload)[0]
            stream.most_credit = max(stream.most_credit, stream.input_credit)
        elif frame.kind is Kind.STARTED:
            stream.started = frame.payload
        elif frame.kind is Kind.STOP:
            stream.stopped = True
        else:
            stream.result = Result.decode(frame.payload)


@dataclass
class Agent:
    """A running agent and its channels."""

    process: subprocess.Popen[bytes]
    hosts: list[Host]

    @property
    def host(self) -> Host:
        """The first channel's."""
        return self.hosts[0]

    def descriptors(self) -> set[str]:
        """What it has open."""
        return {path.name for path in Path(f"/proc/{self.process.pid}/fd").iterdir()}

    def children(self) -> list[int]:
        """Its processes, zombies included, without the one that waits for the next command."""
        return [pid for pid in self._processes() if _name(pid) != SPARE]

    def spares(self) -> list[int]:
        """The processes that wait for the next command."""
        return [pid for pid in self._processes() if _name(pid) == SPARE]

    def _processes(self) -> list[int]:
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]

    def resident_kib(self) -> int:
        """Its memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0])


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").rstrip("\n")
    except OSError:
        return ""


@contextmanager
def running_agent(
    channels: int = 1, options: Sequence[str] = (), program: Path | None = None, *, greeted: bool = True
) -> Iterator[Agent]:
    """An agent that ends with the block; it has to do so by itself once its channels are closed."""
    pairs = [socket.socketpair() for _ in range(channels)]
    fds = [theirs.fileno() for _, theirs in pairs]
    argv = [str(program or PROGRAM), "serve", *options]
    for fd in fds:
        argv += ["-f", str(fd)]
    process = subprocess.Popen(argv, pass_fds=fds, stdin=subprocess.DEVNULL)
    for _, theirs in pairs:
        theirs.close()
    hosts = [Host(ours) for ours, _ in pairs]
    try:
        if greeted:
            for host in hosts:
                host.greet()
        yield Agent(process, hosts)
    finally:
        for host in hosts:
            host.connection.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert process.returncode == 0, f"the agent ended with {process.returncode}"


def done(host: Host, request: Request, stdin: bytes | None = None) -> Result:
    """What became of a request."""
    result = host.run(request, stdin).result
    assert result is not None
    return result
