"""Guests that lie to the daemon: they lose their session, and nothing else is hurt or held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from banger.agent import session as session_module
from banger.agent.guest import AgentGuest
from banger.agent.messages import ExecSpec, Op, Request, Result, Status
from banger.agent.session import SESSION_WINDOW
from banger.agent.wire import MAX_PAYLOAD, MAX_STREAMS, NO_NONCE, Flag, Frame, Kind
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
        lambda agent, stream: agent.write(replace(agent.welcome, nonce=NO_NONCE, protocol=0, tag=0, reason=1).encode()),
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
        welcome = replace(agent.welcome, nonce=agent.hello.nonce).encode()
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
