"""An agent that ends without a word while somebody waits for it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from banger.agent import heartbeat, link
from banger.agent.guest import AgentGuest
from banger.agent.wire import Kind
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from tests.support.scripted_agent import ScriptedAgent, collected, play, served


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "QUIET_S", 0.05)
    monkeypatch.setattr(heartbeat, "LONGEST_S", 0.1)


async def run_cat(guest: AgentGuest) -> object:
    process = await guest.exec(ExecRequest(("cat",)))
    try:
        return await collected(process)
    finally:
        await process.close()


def test_exec_whose_agent_ended_has_an_unknown_outcome_and_does_not_hang(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await served(agent)
        await agent.expect(Kind.PING)
        await agent.gone()

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, run_cat, is_attended=lambda: False)
    assert caught.value.kind is ErrorKind.UNKNOWN_OUTCOME
    assert caught.value.cause == heartbeat.GONE
    assert caught.value.hint == "banger vm restart vm0"


def test_guest_in_which_nobody_is_left_to_answer_is_given_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.gone()

    looks = iter((False, True, False, False))  # an agent that is started again may be a moment late
    monkeypatch.setattr(link, "_LOOK_S", 0.05)
    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, run_cat, is_attended=lambda: next(looks))
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert (caught.value.cause, caught.value.hint) == (heartbeat.GONE, "banger vm restart vm0")
    assert not list(looks)


def test_exec_in_a_guest_that_stands_still_goes_on_when_that_does(tmp_path: Path) -> None:
    asked = threading.Semaphore(0)

    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        ping = await agent.expect(Kind.PING)
        for _ in range(3):  # the machine is asked, and has its guest's port open
            assert await asyncio.to_thread(asked.acquire, timeout=10)
        agent.send(0, Kind.PONG, ping.payload)
        agent.say(stream, b"as if nothing had been")
        agent.finish(stream)

    def is_attended() -> bool:
        asked.release()
        return True

    found = play(tmp_path, script, run_cat, is_attended)
    assert isinstance(found, tuple)
    assert found[0] == b"as if nothing had been"


def test_machine_is_not_asked_while_the_agent_answers(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        for _ in range(4):
            agent.send(0, Kind.PONG, (await agent.expect(Kind.PING)).payload)
        agent.finish(stream)

    def refuse() -> bool:
        raise AssertionError("the agent has answered")

    found = play(tmp_path, script, run_cat, is_attended=refuse)
    assert isinstance(found, tuple)


def test_agent_that_nobody_waits_for_is_left_in_peace(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        agent.finish(stream)
        with pytest.raises((TimeoutError, EOFError)):
            async with asyncio.timeout(0.4):
                await agent.expect(Kind.PING)

    async def work(guest: AgentGuest) -> object:
        found = await run_cat(guest)
        await asyncio.sleep(0.5)
        return found

    assert isinstance(play(tmp_path, script, work), tuple)
