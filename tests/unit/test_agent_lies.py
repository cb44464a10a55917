"""Guests that lie to the daemon: they lose their session, and nothing else is hurt or held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from banger.agent import link as link_module
from banger.agent import session as session_module
from banger.agent.guest import AgentGuest
from banger.agent.messages import ExecSpec, Op, Request, Result, Status
from banger.agent.session import SESSION_WINDOW
from banger.agent.wire import MAX_FRAME, MAX_PAYLOAD, MAX_STREAMS, NO_NONCE, Flag, Frame, Kind
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, ExitStatus
from tests.support.scripted_agent import ScriptedAgent, collected, play, run_true, served


@pytest.mark.parametrize(
    "lie",
    [
        lambda agent, stream: agent.write(b"GET / HTTP/1.1\r\n\r\n" * 10),
        lambda agent, stream: agent.say(stream + 1, b"for a stream that nobody opened"),
        lambda agent, stream: agent.send(stream, Kind.STARTED),
        lambda agent, stream: agent.say(stream, b""),
        lambda agent, stream: [agent.say(stream, bytes(MAX_PAYLOAD)) for _ in range(SESSION_WINDOW // MAX_PAYLOAD + 20)],
        lambda agent, stream: [agent.say(stream, b"", Flag.END), agent.say(stream, b"more")],
        lambda agent, stream: [agent.finish(stream), agent.finish(stream)],
        lambda agent, stream: [agent.finish(stream), agent.say(stream, b"more")],
        lambda agent, stream: agent.send(stream, Kind.CREDIT, b"\xff\xff\xff\xff"),
        lambda agent, stream: agent.send(stream, Kind.CREDIT, bytes(4)),
        lambda agent, stream: agent.send(0, Kind.PONG, b"nobody asked"),
        lambda agent, stream: [agent.send(stream, Kind.STOP), agent.send(stream, Kind.STOP)],
        lambda agent, stream: agent.send(stream, Kind.RESULT, b"\0" * 12),
        lambda agent, stream: agent.write(agent.welcome._replace(nonce=NO_NONCE, protocol=0, tag=0, reason=1).encode()),
    ],
    ids=["no-frames", "foreign-stream", "started-twice", "no-bytes", "beyond-credit", "after-the-end", "two-results",
         "after-the-result", "much-credit", "no-credit", "unasked", "stopped-twice", "no-result", "began-anew"],
)  # fmt: skip
def test_guest_that_breaks_the_rules_loses_its_session_and_nothing_else_is_hurt(
    tmp_path: Path, lie: Callable[[ScriptedAgent, int], object]
) -> None:
    meetings = []

    async def script(agent: ScriptedAgent) -> None:
        meetings.append(agent)
        stream = await served(agent)
        if len(meetings) == 1:
            lie(agent, stream)
            await agent.gone()
        agent.finish(stream)

    async def work(guest: AgentGuest) -> object:
        session = await guest.link.session()
        process = await guest.exec(ExecRequest(("cat",)))
        await asyncio.wait_for(session.over.wait(), 10)
        await process.close()
        return await run_true(guest)

    assert play(tmp_path, script, work) == (b"", b"", ExitStatus(0))
    assert len(meetings) == 2


def test_exec_guest_that_ends_the_output_before_the_command_does_no_harm(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        agent.say(stream, b"all", Flag.END)
        await agent.expect(Kind.PING)

    async def work(guest: AgentGuest) -> object:
        process = await guest.exec(ExecRequest(("true",)))
        said = [data async for _, data in process.output()]
        guest.link.drop()
        with pytest.raises(BangerError) as caught:
            await process.wait()
        return said, caught.value.kind

    assert play(tmp_path, script, work) == ([b"all"], ErrorKind.UNKNOWN_OUTCOME)


def test_ssh_connection_is_over_once_the_server_has_ended_its_side(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        agent.say(stream, b"bye", Flag.END)
        await agent.expect(Kind.CANCEL)
        agent.send(stream, Kind.RESULT, Result(Status.CANCELLED).encode())

    async def work(guest: AgentGuest) -> object:
        return await collected(await guest.ssh())

    assert play(tmp_path, script, work) == (b"bye", b"", ExitStatus(0))


def test_guest_that_promises_endless_streams_is_asked_for_no_more_than_the_protocol_has(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.meet(most_streams=2**32 - 1)
        await agent.gone()

    async def work(guest: AgentGuest) -> None:
        for _ in range(MAX_STREAMS + 1):
            await guest.link.open(ExecSpec(("sleep",)).request())

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, work)
    assert caught.value.kind is ErrorKind.EXHAUSTED


def test_guest_that_sends_but_reads_nothing_loses_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_MOST_UNREAD", 1000)

    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        data = Frame(stream, Kind.DATA, payload=bytes(16384)).encode(agent.tag)
        with suppress(ConnectionError):
            while True:
                agent.write(data)
                await agent._writer.drain()

    async def work(guest: AgentGuest) -> str:
        process = await guest.exec(ExecRequest(("cat", "/dev/zero")))
        with pytest.raises(BangerError) as caught:
            async for _ in process.output():
                pass
        return caught.value.cause

    assert "does not read" in str(play(tmp_path, script, work))


def test_guest_that_breaks_the_rules_with_its_first_word_is_waited_for_by_nobody(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.hear()
        welcome = agent.welcome._replace(nonce=agent.hello.nonce).encode()
        agent.write(welcome + Frame(0, Kind.PONG, payload=b"nobody asked").encode(agent.tag))
        await agent.gone()

    async def work(guest: AgentGuest) -> None:
        async with asyncio.timeout(10):
            await collected(await guest.files.get("/etc"))

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, work)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "breaks the protocol" in caught.value.cause


def test_guest_that_floods_instead_of_greeting_is_given_up(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        for _ in range(1000):
            agent.write(bytes(1 << 16))
            await agent._writer.drain()

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, run_true)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "many bytes" in caught.value.cause


def test_guest_that_serves_as_much_as_it_can_refuses_the_next(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.meet(most_streams=1)
        agent.send((await agent.expect(Kind.OPEN)).stream, Kind.STARTED)
        await agent.gone()

    async def work(guest: AgentGuest) -> None:
        await guest.exec(ExecRequest(("sleep",)))
        await guest.exec(ExecRequest(("sleep",)))

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, work)
    assert caught.value.kind is ErrorKind.EXHAUSTED


def test_request_that_is_too_large_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.meet()
        await agent.gone()

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, lambda guest: guest.link.open(Request(Op.EXEC, bytes(1 << 20))))
    assert caught.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize("lives", [True, False], ids=["answers-a-ping", "answers-nothing"])
def test_guest_that_never_ends_a_cancelled_request_keeps_its_session_only_if_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    monkeypatch.setattr(session_module, "_RESULT_PATIENCE_S", 0.05)
    monkeypatch.setattr(session_module, "_PONG_PATIENCE_S", 10.0 if lives else 0.05)
    meetings, pinged = [], asyncio.Event()

    async def script(agent: ScriptedAgent) -> None:
        meetings.append(agent)
        stream = await served(agent)
        if len(meetings) == 1:
            await agent.expect(Kind.CANCEL)
            ping = await agent.expect(Kind.PING)
            pinged.set()
            if not lives:
                return await agent.gone()
            agent.send(0, Kind.PONG, ping.payload)
            stream = (await agent.expect(Kind.OPEN)).stream
            agent.send(stream, Kind.STARTED)
        return agent.finish(stream)

    async def work(guest: AgentGuest) -> object:
        (await guest.link.start(ExecSpec(("sleep",)).request())).cancel()
        assert guest.link.streams == 0, "what nobody wants any more keeps no VM in use"
        await asyncio.wait_for(pinged.wait(), 10)
        return await run_true(guest)

    assert play(tmp_path, script, work) == (b"", b"", ExitStatus(0))
    assert len(meetings) == (1 if lives else 2)


def test_guest_that_reads_nothing_is_sent_little_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "START_TIMEOUT_S", 0.3)
    met = asyncio.Event()

    async def script(agent: ScriptedAgent) -> None:
        await agent.meet()
        await met.wait()

    async def work(guest: AgentGuest) -> tuple[int, list[object]]:
        session = await guest.link.session()
        large = Request(Op.EXEC, bytes(900 << 10))
        failures = await asyncio.gather(*(guest.link.start(large) for _ in range(20)), return_exceptions=True)
        met.set()
        return session._unread, [getattr(one, "kind", one) for one in failures]

    unsent, kinds = play(tmp_path, script, work)  # type: ignore[misc]
    assert 0 < unsent < 2 << 20
    assert kinds == [ErrorKind.UNAVAILABLE] * 20


def test_flood_of_small_frames_leaves_other_guests_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        agent.write(Frame(stream, Kind.DATA, payload=b"x").encode(agent.tag) * 8000)
        agent.finish(stream)
        await agent.gone()

    async def work(guest: AgentGuest) -> object:
        session = await guest.link.session()
        receive = session.receive
        monkeypatch.setattr(session, "receive", lambda data: (taken.append(len(data)), receive(data)))
        return await run_true(guest)

    assert play(tmp_path, script, work) == (b"x" * 8000, b"", ExitStatus(0))
    assert max(taken) <= MAX_FRAME
    assert sum(taken) > 8000 * 20


def test_guest_that_serves_no_request_breaks_the_protocol(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.meet(most_streams=0)
        await agent.gone()

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, run_true)
    assert (caught.value.kind, "it serves no requests" in caught.value.cause) == (ErrorKind.UNAVAILABLE, True)


@pytest.mark.parametrize("status", [Status.FAILED, Status.NOT_FOUND])
def test_guests_words_are_one_short_line_that_steers_no_terminal(tmp_path: Path, status: Status) -> None:
    words = "\x1b[2J\x07\r\n\u202e" * 1500

    async def script(agent: ScriptedAgent) -> None:
        await agent.meet()
        stream = (await agent.expect(Kind.OPEN)).stream
        agent.send(stream, Kind.RESULT, Result(status, message=words).encode())
        await agent.gone()

    async def work(guest: AgentGuest) -> str:
        try:
            return (await collected(await guest.exec(ExecRequest(("x",)))))[1].decode()
        except BangerError as error:
            return error.cause + "\n"

    said = play(tmp_path, script, work)
    assert isinstance(said, str)
    assert (said.count("\n"), said.rstrip("\n").isprintable(), len(said) < 8192) == (1, True, True)
