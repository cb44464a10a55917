"""A freeze of a guest's file systems that its host gives up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from banger.agent.guest import AgentGuest
from banger.agent.messages import Request, Result
from banger.agent.stream import AgentStream
from banger.agent.wire import Kind
from banger.core.errors import BangerError, ErrorKind
from tests.support.scripted_agent import ScriptedAgent, play


async def answered(agent: ScriptedAgent, fields: bytes) -> None:
    """Meet the host, tell it that something is frozen, and have it take that back."""
    await agent.meet()
    stream = (await agent.expect(Kind.OPEN)).stream
    agent.send(stream, Kind.RESULT, Result(0, fields=fields).encode())
    assert (await agent.expect(Kind.CANCEL)).stream == stream


def test_freeze_that_is_cancelled_as_its_success_arrives_is_taken_back(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await answered(agent, b"\1\0\0\0")

    async def work(guest: AgentGuest) -> None:
        link = guest.machine.asker.link
        opened: asyncio.Future[AgentStream] = asyncio.get_running_loop().create_future()
        real_open = link.open

        async def watched_open(request: Request) -> AgentStream:
            opened.set_result(await real_open(request))
            return opened.result()

        link.open = watched_open  # type: ignore[method-assign]
        freezing = asyncio.create_task(guest.machine.freeze(["/"], 60))
        stream = await opened
        stream.result.add_done_callback(lambda _: freezing.cancel())
        with pytest.raises(asyncio.CancelledError):
            await freezing
        assert stream.result.result().status == 0
        await asyncio.wait_for(link._session.over.wait(), 10)  # type: ignore[union-attr]

    play(tmp_path, script, work)


def test_freeze_whose_answer_makes_no_sense_is_taken_back(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await answered(agent, b"?")

    async def work(guest: AgentGuest) -> None:
        with pytest.raises(BangerError) as caught:
            await guest.machine.freeze(["/"], 60)
        assert caught.value.kind is ErrorKind.UNAVAILABLE
        await asyncio.wait_for(guest.machine.asker.link._session.over.wait(), 10)  # type: ignore[union-attr]

    play(tmp_path, script, work)
