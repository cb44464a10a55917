"""The guest agent's own program on one byte stream: greetings, bad frames, flow control, and what is left in the end."""

from __future__ import annotations

import random
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.agent import messages
from banger.agent.messages import ExecSpec, Op, Request, Status
from banger.agent.wire import MAX_PAYLOAD, NO_NONCE, Flag, Frame, Hello, Kind, Reason, Welcome
from tests.support.agent import SESSION_WINDOW, Agent, Host, Stream, running_agent
from tests.support.soak import IS_SOAK
from tests.support.waiting import eventually

TRUE = ExecSpec(("true",)).request()
FLOOD = ExecSpec(("sh", "-c", "exec cat /dev/zero")).request()


@pytest.fixture
def agent() -> Iterator[Agent]:
    with running_agent() as running:
        yield running


def received(connection: socket.socket, size: int) -> bytes:
    connection.settimeout(10)
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, "the agent has closed the channel"
        data += piece
    return data


def test_agent_says_that_it_has_started_and_then_answers_a_greeting_without_zeros() -> None:
    with running_agent(greeted=False) as agent:
        started = Welcome.decode(received(agent.host.connection, 96))
        assert (started.nonce, started.reason, started.tag) == (NO_NONCE, Reason.STARTED, 0)
        welcome = agent.host.greet(padded=False)
        assert (welcome.protocol, welcome.reason, welcome.boot) == (1, Reason.GREETED, started.boot)
        assert agent.host.run(TRUE).exit.code == 0


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(b"n" * 16, SESSION_WINDOW, 7, 9), Reason.NO_PROTOCOL),
        (Hello(b"n" * 16, SESSION_WINDOW, 0, 0), Reason.NO_PROTOCOL),
        (Hello(b"n" * 16, 0), Reason.BAD_HELLO),
        (Hello(b"n" * 16, 1 << 30), Reason.BAD_HELLO),
        (Hello(NO_NONCE, SESSION_WINDOW), Reason.BAD_HELLO),
    ],
)
def test_greeting_that_cannot_be_met_is_answered_and_another_one_is_waited_for(hello: Hello, reason: Reason) -> None:
    with running_agent(greeted=False) as agent:
        received(agent.host.connection, 96)
        agent.host.connection.sendall(hello.encode(padded=False))
        answer = Welcome.decode(received(agent.host.connection, 96))
        assert (answer.reason, answer.protocol, answer.tag) == (reason, 0, 0)
        assert (answer.lowest, answer.highest) == (1, 1)
        assert agent.host.greet().protocol == 1


def test_new_host_finds_its_place_wherever_the_old_one_stopped(agent: Agent) -> None:
    host, chance = agent.host, random.Random(1)
    for _ in range(60):
        request = ExecSpec(("sh", "-c", "cat; sleep 60"), grace_ms=0).request()
        stream = host.open(request)
        frame = Frame(stream.id, Kind.DATA, Flag.NONE, chance.randbytes(chance.choice([0, 1, 50, MAX_PAYLOAD])))
        data = frame.encode(host.tag)
        host.send_bytes(data[: chance.randrange(len(data))])
        before = host.tag
        welcome = host.greet()
        assert (welcome.reason, welcome.ended_streams) == (Reason.GREETED, 1)
        assert host.tag != before
    assert host.run(TRUE).exit.code == 0
    eventually(lambda: not agent.children(), what="what the old hosts have started is gone")


def test_half_a_frame_of_an_old_host_never_reaches_a_command(agent: Agent, tmp_path: Path) -> None:
    host = agent.host
    for cut in (1, 12, 13, 15, 16, 17, 100, 119, 120, 123):
        target = tmp_path / str(cut)
        script = f"trap '' HUP; echo ready; cat >{target}; echo >>{target}.done"
        stream = host.open(ExecSpec(("sh", "-c", script)).request())
        host.wait(lambda stream=stream: b"ready" in stream.out)  # type: ignore[misc]
        host.send(stream, Kind.DATA, b"whole")
        host.send_bytes(Frame(stream.id, Kind.DATA, Flag.NONE, b"x" * 104).encode(host.tag)[:cut])
        host.greet()
        eventually(Path(f"{target}.done").exists, what="the command has seen the end")
        assert target.read_bytes() == b"whole", cut


def test_large_requests_one_after_the_other_are_served(agent: Agent) -> None:
    large = ExecSpec(("true",), env=tuple(f"V{n}={'x' * 130000}" for n in range(8))).request()
    for _ in range(3):
        assert agent.host.run(large).exit.code == 0


def test_greeting_in_what_a_command_is_sent_is_data(agent: Agent) -> None:
    data = Hello(b"n" * 16, SESSION_WINDOW).encode() * 3
    assert agent.host.run(ExecSpec(("cat",)).request(), stdin=data).out == data


def test_closed_channel_ends_what_it_has_started_and_no_other_channels() -> None:
    with running_agent(channels=2) as agent:
        one, other = agent.hosts
        gone = one.open(ExecSpec(("sh", "-c", "sleep 300 | cat"), grace_ms=100).request())
        one.wait(lambda: gone.started is not None)
        stays = other.open(ExecSpec(("cat",)).request())
        other.wait(lambda: stays.started is not None)
        one.connection.close()
        eventually(lambda: len(agent.children()) == 1, what="only the other channel's command is left")
        other.write(stays, b"still here", end=True)
        assert other.finish(stays).out == b"still here"


BAD = {
    "a foreign tag": lambda tag: Frame(1, Kind.DATA).encode(tag ^ 1),
    "an unknown kind": lambda tag: struct.pack("<IIIBBHI", 0, 1, tag, 99, 0, 0, tag),
    "an agent's kind": lambda tag: Frame(1, Kind.RESULT, Flag.NONE, b"x" * 12).encode(tag),
    "a kind that is none": lambda tag: struct.pack("<IIIBBHI", 0, 1, tag, 0, 0, 0, tag),
    "an unknown flag": lambda tag: struct.pack("<IIIBBHI", 0, 1, tag, 2, 0x80, 0, tag),
    "a flag that is not the kind's": lambda tag: struct.pack("<IIIBBHI", 0, 1, tag, 4, 1, 0, tag),
    "something that is zero": lambda tag: struct.pack("<IIIBBHI", 0, 1, tag, 4, 0, 7, tag),
    "a length above all": lambda tag: struct.pack("<IIIBBH", MAX_PAYLOAD + 1, 1, tag, 2, 0, 0),
    "the largest length": lambda tag: struct.pack("<IIIBBH", 0xFFFFFFFF, 1, tag, 2, 0, 0),
    "a wrong trailer": lambda tag: Frame(1, Kind.CANCEL).encode(tag)[:-4] + bytes(4),
    "a stream never opened": lambda tag: Frame(999, Kind.DATA, Flag.NONE, b"x").encode(tag),
    "a credit of the wrong length": lambda tag: Frame(1, Kind.CREDIT, Flag.NONE, b"x").encode(tag),
    "more credit than there can be": lambda tag: Frame(0, Kind.CREDIT, Flag.NONE, b"\xff" * 4).encode(tag),
    "a signal for nobody": lambda tag: Frame(1, Kind.SIGNAL, Flag.NONE, b"\x09\x09").encode(tag),
    "data on the session": lambda tag: Frame(0, Kind.DATA, Flag.NONE, b"x").encode(tag),
    "a ping on a stream": lambda tag: Frame(1, Kind.PING).encode(tag),
    "a long ping": lambda tag: Frame(0, Kind.PING, Flag.NONE, b"x" * 65).encode(tag),
    "a stream opened twice": lambda tag: b"".join(f.encode(tag) for f in TRUE.frames(1, 0)),
    "a stream with the session's number": lambda tag: b"".join(f.encode(tag) for f in TRUE.frames(0, 0)),
    "a frame in the middle of a request": lambda tag: (
        Frame(5, Kind.OPEN, Flag.MORE, b"x").encode(tag) + Frame(0, Kind.PING).encode(tag)
    ),
    "a request of two streams": lambda tag: (
        Frame(5, Kind.OPEN, Flag.MORE, b"x").encode(tag) + Frame(6, Kind.OPEN).encode(tag)
    ),
    "more input than was allowed": lambda tag: Frame(1, Kind.DATA, Flag.NONE, bytes(30000)).encode(tag) * 3,
    "input behind its end": lambda tag: Frame(1, Kind.DATA, Flag.END, b"").encode(tag) * 2,
}


@pytest.mark.parametrize("what", BAD)
def test_bad_frame_ends_the_session_and_is_told(agent: Agent, what: str) -> None:
    host = agent.host
    host.open(ExecSpec(("sleep", "300"), grace_ms=0).request())
    host.send_bytes(BAD[what](host.tag))
    host.wait(lambda: host.decoder.lost is not None)
    assert host.decoder.lost is not None
    assert host.decoder.lost.reason == Reason.BAD_FRAME
    eventually(lambda: not agent.children(), what="its command is killed")
    assert host.greet(padded=False).ended_streams == 1
    assert host.run(TRUE).exit.code == 0


def test_request_larger_than_all_is_bad_and_one_of_many_frames_is_not(agent: Agent) -> None:
    host = agent.host
    argv = ("sh", "-c", "echo $# ${#1}", "sh", *["x" * 100_000] * 9)
    assert host.run(ExecSpec(argv).request()).out == b"9 100000\n"
    for _ in range(33):
        host.send(77, Kind.OPEN, bytes(MAX_PAYLOAD), Flag.MORE)
    host.wait(lambda: host.decoder.lost is not None)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (Request(Op.STAT), Status.BAD_REQUEST),
        (Request(Op.STAT, b"\xff" * 20), Status.BAD_REQUEST),
        (Request(Op.GET, messages.string(b"a\0b")), Status.BAD_REQUEST),
        (Request(Op.GET, messages.string("/x") + b"more"), Status.BAD_REQUEST),
        (Request(Op.EXEC, ExecSpec(("true",)).request().fields, 0x8000), Status.BAD_REQUEST),
        (Request(Op.EXEC, ExecSpec(("true",)).request().fields[:-5]), Status.BAD_REQUEST),
        (Request(9999, b""), Status.UNSUPPORTED),  # type: ignore[arg-type]
        (Request(0, b""), Status.UNSUPPORTED),  # type: ignore[arg-type]
    ],
)
def test_request_that_makes_no_sense_is_answered_and_costs_the_session_nothing(
    agent: Agent, request_: Request, status: Status
) -> None:
    result = agent.host.run(request_).result
    assert result is not None
    assert result.status == status
    assert agent.host.run(TRUE).exit.code == 0


def test_frames_that_cross_the_end_of_a_stream_are_ignored(agent: Agent) -> None:
    stream = agent.host.run(TRUE)
    for kind, payload in ((Kind.DATA, b"x"), (Kind.CREDIT, bytes(4)), (Kind.CANCEL, b""), (Kind.SIGNAL, b"\0\t")):
        agent.host.send(stream, kind, payload)
    agent.host.send(stream, Kind.RESIZE, bytes(4))
    assert agent.host.run(TRUE).exit.code == 0


def test_ping_is_answered_with_its_own_bytes_beside_a_flood(agent: Agent) -> None:
    host = agent.host
    host.open(FLOOD)
    for word in (b"", b"one", b"x" * 64):
        host.send(0, Kind.PING, word)
        host.wait(lambda word=word: word in host.pongs)  # type: ignore[misc]


def test_streams_above_the_limit_are_refused_and_the_others_go_on(agent: Agent) -> None:
    host = agent.host
    request = ExecSpec(("cat",), grace_ms=0).request()
    streams = [host.open(request) for _ in range(260)]
    host.wait(lambda: sum(stream.started is not None for stream in streams) == 256)
    refused = [stream.result.status for stream in streams if stream.result]
    assert refused == [Status.BUSY] * 4
    host.write(streams[0], b"on", end=True)
    assert host.finish(streams[0]).out == b"on"
    assert host.run(TRUE).exit.code == 0


def test_output_stops_where_its_credit_ends_and_goes_on_with_more(agent: Agent) -> None:
    host = agent.host
    stream = host.open(FLOOD, window=1000)
    host.wait(lambda: len(stream.out) == 1000)
    assert host.run(ExecSpec(("echo", "beside")).request()).out == b"beside\n"
    assert len(stream.out) == 1000
    host.send(stream, Kind.CREDIT, struct.pack("<I", 77))
    host.wait(lambda: len(stream.out) == 1077)


def test_output_of_all_streams_together_stays_in_the_sessions_window(agent: Agent) -> None:
    host = agent.host
    host.session_credit = False
    streams = [host.open(FLOOD) for _ in range(5)]

    def taken() -> int:
        return sum(len(stream.out) for stream in streams)

    host.wait(lambda: taken() >= SESSION_WINDOW - 16384)
    assert host.run(TRUE).exit.code == 0, "a result needs no credit"
    assert taken() <= SESSION_WINDOW
    more = struct.pack("<I", 50_000)
    host.send(0, Kind.CREDIT, more)
    host.wait(lambda: taken() > SESSION_WINDOW)


def measured(host: Host, rounds: int) -> float:
    """The median time of a short command, in seconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        host.run(TRUE)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def test_twenty_bulk_streams_are_served_alike_and_do_not_hold_up_a_command(agent: Agent) -> None:
    host = agent.host
    streams: list[Stream] = [host.open(FLOOD) for _ in range(20)]
    host.wait(lambda: all(stream.out for stream in streams))
    begun = [len(stream.out) for stream in streams]  # of the first, there is much by the time that the last one runs
    host.wait(lambda: all(len(stream.out) - before > 1 << 20 for stream, before in zip(streams, begun, strict=True)))
    sizes = [len(stream.out) - before for stream, before in zip(streams, begun, strict=True)]
    assert max(sizes) < 8 * min(sizes), sizes
    assert measured(host, 5) < 1.0  # the figure itself is a benchmark's: here, all share two processors
    assert agent.resident_kib() < 4096


def test_window_of_input_grows_for_who_reads_and_all_of_it_arrives(agent: Agent) -> None:
    stream = agent.host.open(ExecSpec(("sh", "-c", "wc -c")).request())
    agent.host.write(stream, bytes(8 << 20), end=True)
    assert agent.host.finish(stream).out == b"%d\n" % (8 << 20)
    assert stream.most_credit > 1 << 18


def test_many_commands_leave_no_descriptor_no_process_and_no_memory(agent: Agent) -> None:
    host = agent.host
    count = 10_000 if IS_SOAK else 300
    before = agent.descriptors()
    host.run(TRUE)
    memory = agent.resident_kib()
    for number in range(count // 10):
        streams = [host.open(TRUE) for _ in range(9)]
        odd = host.open(ExecSpec(("cat",), grace_ms=0).request())
        host.send(odd, Kind.CANCEL)
        for stream in [*streams, odd]:
            host.finish(stream)
        if number % 10 == 9:
            eventually(lambda: not agent.children(), what="none of them is left")
            host.greet()
    eventually(lambda: agent.descriptors() == before, what="no descriptor is left")
    assert agent.resident_kib() < memory + 512
