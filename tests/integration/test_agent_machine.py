"""The guest agent's own program and the machine it runs on: connections in it, its figures, its program's own facts."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.agent import messages
from banger.agent.datagrams import datagram
from banger.agent.identity import Identity, give
from banger.agent.messages import ExecSpec, Family, Request, Status
from banger.agent.wire import MAX_DIALS, Flag, Kind, Reason
from tests.support.agent import PROGRAM, ROOT, SOURCES, Host, done

pytest_plugins = ("tests.support.agent_fixtures",)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_connection_carries_both_directions_and_ends_one_by_one(host: Host, listener: socket.socket) -> None:
    stream = host.open(messages.dial(Family.TCP4, "127.0.0.1", listener.getsockname()[1]))
    host.send(stream, Kind.DATA, b"early")  # before it is known to be connected
    served, _ = listener.accept()
    with served:
        host.wait(lambda: stream.started is not None)
        assert served.recv(99) == b"early"
        served.sendall(b"hello")
        host.wait(lambda: stream.out == b"hello")
        host.send(stream, Kind.DATA, b"last", Flag.END)
        assert served.makefile("rb").read() == b"last"
        served.sendall(b"answer to the end")
        served.shutdown(socket.SHUT_WR)
        result = host.finish(stream).result
    assert stream.out == b"helloanswer to the end"
    assert stream.out_ended
    assert result is not None
    assert result.status == Status.OK


def test_end_of_the_other_side_leaves_the_own_direction_open(host: Host, listener: socket.socket) -> None:
    stream = host.open(messages.dial(Family.TCP4, "127.0.0.1", listener.getsockname()[1]))
    served, _ = listener.accept()
    with served:
        served.shutdown(socket.SHUT_WR)
        host.wait(lambda: stream.out_ended)
        assert stream.result is None
        host.write(stream, b"still heard", end=True)
        assert served.makefile("rb").read() == b"still heard"
        host.finish(stream)


def test_bulk_goes_through_a_connection_both_ways_at_once(host: Host, listener: socket.socket) -> None:
    size = 4 << 20

    def echo() -> None:
        served, _ = listener.accept()
        with served:
            while data := served.recv(65536):
                served.sendall(data)

    thread = threading.Thread(target=echo)
    thread.start()
    data = os.urandom(size)
    stream = host.run(messages.dial(Family.TCP4, "127.0.0.1", listener.getsockname()[1]), stdin=data)
    thread.join()
    assert stream.out == data


def test_unix_socket_is_dialled_by_its_path(host: Host, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        stream = host.open(messages.dial(Family.UNIX, f"{tmp_path}/s"))
        served, _ = server.accept()
        with served:
            served.sendall(b"here")
        host.wait(lambda: stream.out_ended)
        host.send(stream, Kind.CANCEL)
        host.finish(stream)
        assert stream.out == b"here"


def test_nobody_there_is_refused_and_a_wrong_address_is_told(
    host: Host, listener: socket.socket, tmp_path: Path
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert done(host, messages.dial(Family.TCP4, "127.0.0.1", port)).status == Status.REFUSED
    assert done(host, messages.dial(Family.UNIX, f"{tmp_path}/none")).status == Status.REFUSED
    for family, address, number in (
        (Family.TCP4, "localhost", 80), (Family.TCP4, "::1", 80), (Family.TCP6, "127.0.0.1", 80),
        (Family.TCP4, "127.0.0.1", 0), (Family.UNIX, "relative", 0), (Family.UNIX, "/" + "x" * 200, 0),
    ):  # fmt: skip
        assert done(host, messages.dial(family, address, number)).status == Status.BAD_REQUEST


def test_connection_that_is_reset_says_so(host: Host, listener: socket.socket) -> None:
    stream = host.open(messages.dial(Family.TCP4, "127.0.0.1", listener.getsockname()[1]))
    served, _ = listener.accept()
    host.wait(lambda: stream.started is not None)
    served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    served.close()
    result = host.finish(stream).result
    assert result is not None
    assert result.status == Status.FAILED


def test_figures_are_those_of_the_machine(host: Host) -> None:
    lines = host.run(messages.FACTS).out.decode().splitlines()
    facts = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}
    assert abs(int(facts["clock"]) - time.time_ns()) < 60e9
    assert facts["kernel"] == os.uname().release
    assert facts["hostname"] == socket.gethostname()
    assert int(facts["cpus"]) == os.cpu_count()
    total, _, available, *_ = map(int, facts["memory"].split())
    assert 0 < available < total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert any(re.fullmatch(r"disk / \S+ \d+ \d+ \d+ \d+ \d+", line) for line in lines)
    assert "address lo 127.0.0.1/8" in lines
    assert re.fullmatch(r"\d+ \d+", facts["agent"])
    assert len(facts["cpu"].split()) == 8


def test_clock_can_be_asked_for(host: Host) -> None:
    fields = done(host, messages.clock()).fields
    assert abs(messages.read_i64(fields) - time.time_ns()) < 60e9


@pytest.mark.parametrize(
    "request_",
    [
        messages.clock(-1, step=True),
        messages.entropy(b"short"),
        messages.entropy(bytes(513)),
        give(Identity.HOSTNAME, "no name!"),
        give(Identity.MACHINE_ID, "f" * 31),
        give(Identity.BOOT_ID, "f" * 36 + "x"),
        messages.freeze(0),
        messages.freeze(60_001),
        Request(messages.Op.POWEROFF, b"\x09"),
    ],
)
def test_what_would_do_harm_is_refused(host: Host, request_: Request) -> None:
    assert done(host, request_).status == Status.BAD_REQUEST


def test_file_system_that_cannot_stand_still_says_so(host: Host) -> None:
    result = done(host, messages.freeze(1000, ["/proc"]))
    assert result.status in (Status.UNSUPPORTED, Status.FAILED)
    assert result.message.startswith('cannot freeze "/proc": ')


def test_program_is_the_same_bytes_wherever_it_is_built_small_and_alone(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "guest-agent"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("build"))
    shutil.copy(ROOT / "pyproject.toml", copy.parent)
    subprocess.run(["make", "--silent", "--directory", copy, "build/banger-agent"], check=True)
    built = (copy / "build/banger-agent").read_bytes()
    assert built == PROGRAM.read_bytes(), "run make setup"
    assert len(built) <= 150_000
    headers = subprocess.run(["readelf", "-ldW", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers
    assert "There is no dynamic section" in headers
    version = subprocess.run([PROGRAM, "version"], capture_output=True, text=True, check=True).stdout.strip()
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert b"/elsewhere" not in built


def test_channel_that_only_dials_does_nothing_else(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen([PROGRAM, "serve", "-p", str(theirs.fileno())], pass_fds=[theirs.fileno()]):
        theirs.close()
        host = Host(ours)
        assert host.greet().most_streams == MAX_DIALS
        for request in (messages.FACTS, messages.read("/etc/passwd"), ExecSpec(("true",)).request()):
            assert done(host, request).status == Status.UNSUPPORTED
        assert done(host, messages.dial(Family.UNIX, f"{tmp_path}/none")).status == Status.REFUSED
        ours.shutdown(socket.SHUT_RDWR)


def test_host_that_gives_a_connection_up_resets_it(host: Host, listener: socket.socket) -> None:
    stream = host.open(messages.dial(Family.MACHINE, port=listener.getsockname()[1]))
    served, _ = listener.accept()
    with served:
        host.wait(lambda: stream.started is not None)
        host.send(stream, Kind.CANCEL)
        with pytest.raises(ConnectionResetError):
            served.recv(1)
    host.finish(stream)


def test_reset_that_is_met_while_writing_is_told_after_what_came_before_it(host: Host, listener: socket.socket) -> None:
    stream = host.open(messages.dial(Family.MACHINE, port=listener.getsockname()[1]), window=4)
    served, _ = listener.accept()
    with served:
        host.wait(lambda: stream.started is not None)
        served.sendall(b"1234then more")  # the host gives credit for four bytes at first
        host.wait(lambda: stream.out == b"1234")
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    host.send(stream, Kind.DATA, b"finds nobody")
    host.wait(lambda: stream.stopped)
    host.send(stream, Kind.CREDIT, (100).to_bytes(4, "little"))
    result = host.finish(stream).result
    assert result is not None
    assert (result.status, result.errno) == (Status.FAILED, errno.ECONNRESET)
    assert stream.out == b"1234then more"


@pytest.mark.parametrize(
    "fields", [(Family.UNIX, "/tmp/s", 0), (Family.TCP4, "127.0.0.1", 0), (Family.MACHINE, "x", 9)]
)
def test_datagrams_to_what_is_no_address_are_refused_with_what_follows_them(
    host: Host, fields: tuple[Family, str, int]
) -> None:
    stream = host.open(messages.dial(*fields, datagrams=True))
    host.send(stream, Kind.DATA, datagram(b"for nobody"))
    result = host.finish(stream).result
    assert result is not None
    assert result.status == Status.BAD_REQUEST


def test_agent_that_dies_is_started_again_and_says_so_on_every_channel() -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    argv = [str(PROGRAM), "serve", "-r", *(word for _, theirs in pairs for word in ("-f", str(theirs.fileno())))]
    parent = subprocess.Popen(argv, pass_fds=[theirs.fileno() for _, theirs in pairs], stderr=subprocess.PIPE)
    hosts = [Host(ours) for ours, theirs in pairs if not theirs.close()]
    boots = set()
    for _ in range(2):
        for host in hosts:
            boots.add(host.greet().boot)
        lost = hosts[0].open(ExecSpec(("sleep", "60")).request())
        hosts[0].wait(lambda stream=lost: stream.started is not None)
        os.kill(int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text(encoding="utf-8")), signal.SIGKILL)
        for host in hosts:
            host.wait(lambda decoder=host.decoder: decoder.lost is not None)
            assert host.decoder.lost.reason == Reason.STARTED
        os.kill(int.from_bytes(lost.started, "little"), signal.SIGKILL)
    assert len(boots) == 1, "the machine is the same"
    parent.send_signal(signal.SIGTERM)  # as services are ended
    hosts[0].greet()
    for ours, _ in pairs:
        ours.close()
    assert parent.wait(10) == 0
    assert parent.stderr is not None
    with parent.stderr:
        assert parent.stderr.read().count(b"is started again") == 2
