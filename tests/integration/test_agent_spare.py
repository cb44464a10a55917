"""The process that waits for the next command: who gets it, and what becomes of it."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator

import pytest

from banger.agent.messages import ExecFlag, ExecSpec, Request, Status
from tests.support.agent import Agent, Host, running_agent
from tests.support.waiting import eventually

TRUE = ExecSpec(("true",)).request()


@pytest.fixture
def agent() -> Iterator[Agent]:
    with running_agent() as running:
        yield running


def spare(agent: Agent) -> int:
    """The process that waits, once there is one."""
    (pid,) = eventually(agent.spares, what="a process waits for the next command")
    return pid


def process(host: Host, request: Request) -> int:
    """Which process a command has run in."""
    stream = host.run(request)
    assert stream.exit.code == 0
    assert stream.started is not None
    (pid,) = struct.unpack("<I", stream.started)
    return int(pid)


def test_there_is_one_from_the_first_command_to_the_end_of_the_session(agent: Agent) -> None:
    assert not agent.spares()
    agent.host.run(TRUE)
    first = spare(agent)
    assert process(agent.host, TRUE) == first
    assert spare(agent) != first
    agent.host.greet()
    eventually(lambda: not agent.spares(), what="none waits for a session that may need none")


def test_commands_at_once_leave_one(agent: Agent) -> None:
    for _ in range(5):
        streams = [agent.host.open(TRUE) for _ in range(8)]
        assert {agent.host.finish(stream).exit.code for stream in streams} == {0}
    last = spare(agent)
    assert process(agent.host, TRUE) == last
    assert spare(agent) != last


@pytest.mark.parametrize(
    "spec",
    [
        ExecSpec(("true",), id="own"),
        ExecSpec(("true",), flags=ExecFlag.TTY),
        ExecSpec(("true",), env=("LONG=" + "x" * 5000,)),
    ],
    ids=["an-id", "a-terminal", "long"],
)
def test_command_that_it_is_not_for_has_another_process(agent: Agent, spec: ExecSpec) -> None:
    agent.host.run(TRUE)
    waiting = spare(agent)
    assert process(agent.host, spec.request()) != waiting
    assert spare(agent) == waiting
    assert process(agent.host, TRUE) == waiting


def test_one_that_is_killed_is_missed_by_nobody(agent: Agent) -> None:
    agent.host.run(TRUE)
    waiting = spare(agent)
    os.kill(waiting, signal.SIGKILL)
    eventually(lambda: waiting not in agent.spares(), what="it has ended")
    assert process(agent.host, TRUE) != waiting
    assert spare(agent) != waiting


def test_command_that_cannot_be_executed_says_why_in_it_too(agent: Agent) -> None:
    agent.host.run(TRUE)
    spare(agent)
    result = agent.host.run(ExecSpec(("/none/such",)).request()).result
    assert result is not None
    assert (result.status, result.message) == (Status.NOT_FOUND, 'command "/none/such" not found')
    spare(agent)


def test_another_channels_session_keeps_it() -> None:
    with running_agent(channels=2) as agent:
        one, other = agent.hosts
        one.run(TRUE)
        waiting = spare(agent)
        one.connection.close()
        assert process(other, TRUE) == waiting
