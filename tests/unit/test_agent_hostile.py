"""Whatever a guest says on its agent's byte stream, the daemon takes no harm: generated conversations."""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from banger.agent.messages import ExecSpec, Exit, Result, Status
from banger.agent.session import SESSION_WINDOW, AgentSession
from banger.agent.stream import AgentStream
from banger.agent.wire import HELLO_BYTES, MAX_PAYLOAD, NO_NONCE, Flag, Frame, Hello, Kind, Welcome
from banger.core.errors import BangerError

TAG = 0x01020304
WELCOME = Welcome(
    nonce=NO_NONCE, protocol=1, lowest=1, highest=1, reason=0, tag=TAG, ended_streams=0, boot=bytes(16), version="x",
    most_streams=256, features=0,
)  # fmt: skip
#: Streams that the host has opened in these conversations.
OPENED = 3
#: How long ``make fuzz`` goes on.
FUZZ_S = float(os.environ.get("FUZZ_SECONDS", "0.2"))

payloads = st.one_of(
    st.binary(max_size=80),
    st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "little")),
    st.sampled_from([bytes(MAX_PAYLOAD), Result(0, fields=Exit(killed=False, code=3).encode()).encode(),
                     Result(7, message="no such program").encode()]),
)  # fmt: skip
frames = st.builds(
    Frame, st.integers(0, OPENED + 1), st.sampled_from(Kind), st.sampled_from([0, 1, 2, 3]).map(Flag), payloads
).map(lambda frame: frame.encode(TAG))
damaged = st.tuples(frames, st.integers(0, 40), st.integers(0, 255)).map(
    lambda made: made[0][: made[1] % len(made[0])] + bytes([made[2]]) + made[0][made[1] % len(made[0]) + 1 :]
)
FLOOD = Frame(1, Kind.DATA, payload=bytes(MAX_PAYLOAD)).encode(TAG) * 20
bulk = st.integers(1, 20).map(lambda count: FLOOD[: len(FLOOD) // 20 * count])
announced = st.just(WELCOME._replace(protocol=0, tag=0, reason=1).encode())
sayings = st.lists(st.one_of(frames, frames, frames, bulk, damaged, st.binary(max_size=60), announced), max_size=25)


class Wire(asyncio.Transport):
    """Takes what the session says, and knows whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.said = bytearray()
        self.closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is held back here."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closed = True


def begun() -> tuple[AgentSession, Wire, list[AgentStream]]:
    """A session with some commands in it."""
    session, wire = AgentSession("vm0"), Wire()
    session.connection_made(wire)
    hello = Hello.decode(bytes(wire.said[-HELLO_BYTES:]))
    session.receive(WELCOME._replace(nonce=hello.nonce).encode())
    return session, wire, [session.open(ExecSpec(("true",)).request()) for _ in range(OPENED)]


@example([FLOOD], 65536)
@given(sayings, st.integers(1, 5000))
def test_conversation_of_any_guest_ends_in_order_and_holds_no_more_than_was_granted(
    said: list[bytes], piece: int
) -> None:
    hold_a_conversation(said, piece)


@pytest.mark.slow
@pytest.mark.timeout(FUZZ_S + 300)
def test_guests_fuzzed_for_a_while_do_no_harm() -> None:
    """By time, not by examples; every round draws anew."""
    end, rounds = time.monotonic() + FUZZ_S, 0

    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    @given(sayings, st.integers(1, 5000))
    def one_round(said: list[bytes], piece: int) -> None:
        if time.monotonic() < end:
            hold_a_conversation(said, piece)

    while time.monotonic() < end:
        one_round()
        rounds += 1
    print(f"{rounds} rounds of 200 conversations")


def hold_a_conversation(said: list[bytes], piece: int) -> None:
    """Hear a guest say all this, so many bytes at a time."""

    async def scenario() -> None:
        session, wire, streams = begun()
        data = b"".join(said)
        for start in range(0, len(data), piece):
            session.receive(data[start : start + piece])
        assert session.is_live != wire.closed
        assert sum(len(stream._backlog) for stream in streams) <= SESSION_WINDOW * 4
        for stream in streams:
            assert len(stream._backlog) <= stream.window
        session.connection_lost(None)
        for stream in streams:
            assert stream.result.done(), "nobody waits for ever"
            try:
                while await stream.read() is not None:
                    pass
            except BangerError as error:
                assert error.kind.value == "unknown_outcome"

    asyncio.run(scenario())


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_what_comes_before_the_answer_to_a_greeting_is_passed_over(garbage: bytes, piece: int) -> None:
    async def scenario() -> None:
        session, wire = AgentSession("vm0"), Wire()
        session.connection_made(wire)
        hello = Hello.decode(bytes(wire.said[-HELLO_BYTES:]))
        data = garbage + WELCOME._replace(nonce=hello.nonce).encode()
        for start in range(0, len(data), piece):
            session.receive(data[start : start + piece])
        assert session.is_live
        assert (await session.greeted).tag == TAG
        session.end("the test is over")

    asyncio.run(scenario())


def test_announcements_without_end_before_an_answer_are_given_up() -> None:
    async def scenario() -> None:
        session, wire = AgentSession("vm0"), Wire()
        session.connection_made(wire)
        data = WELCOME._replace(protocol=0, tag=0, reason=1, boot=secrets.token_bytes(16)).encode() * 1000
        while not wire.closed:
            session.receive(data)
        assert isinstance(session.greeted.exception(), BangerError)

    asyncio.run(scenario())


#: Of a RESULT, 16384 bytes in all, what is left for its message or its fields.
LONGEST = 16384 - 8 - 4 - 1
RESULTS = {
    "message": struct.pack("<HHII", Status.FAILED, 0, 0, LONGEST) + b"\xff" * LONGEST + b"\0",
    "fields": Result(Status.OK, fields=b"\xff" * LONGEST).encode(),
}


@pytest.mark.slow
@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_guest_that_fills_whatever_it_may_costs_no_more_than_ten_megabytes(result: bytes) -> None:
    async def scenario() -> int:
        session, _, streams = begun()
        spec = ExecSpec(("true",)).request()
        streams += [session.open(spec) for _ in range(WELCOME.most_streams - OPENED)]
        tracemalloc.start()
        for stream in streams:
            fill(session, stream)
            session.receive(Frame(stream.number, Kind.RESULT, payload=result).encode(TAG))
        session.receive(Frame(1, Kind.DATA, payload=bytes(MAX_PAYLOAD)).encode(TAG)[:-1])  # whose end never comes
        assert session.is_live
        assert all(len(stream._backlog) == stream.window for stream in streams)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held

    assert asyncio.run(scenario()) < 10 * 10**6


def fill(session: AgentSession, stream: AgentStream) -> None:
    """Use a stream's credit up: first in pieces of a byte, of both outputs in turn, then in large ones."""
    for number in range(50):
        flags = Flag.ERR if number % 2 else Flag.NONE
        session.receive(Frame(stream.number, Kind.DATA, flags, b"x").encode(TAG))
    left = stream.window - 50
    while left:
        piece = bytes(min(left, MAX_PAYLOAD))
        session.receive(Frame(stream.number, Kind.DATA, payload=piece).encode(TAG))
        left -= len(piece)
