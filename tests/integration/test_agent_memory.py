"""The guest agent without memory: every request is answered, none is taken for more than it was, and others go on."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.agent import messages
from banger.agent.messages import ExecFlag, ExecSpec, Op, Request, Status, string
from banger.agent.wire import MAX_REQUEST
from tests.support.agent import Agent, done, running_agent
from tests.support.waiting import eventually

LONG = MAX_REQUEST - 4096


def _limit_memory(agent: Agent) -> None:
    """It may have what it has, and not a page more; the same for what it starts."""
    pid = agent.process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))


def _give_memory_back(agent: Agent) -> None:
    resource.prlimit(agent.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)


def _exec(*argv: str) -> Request:
    return ExecSpec(argv, flags=ExecFlag.NONE).request()


@pytest.fixture
def agent() -> Iterator[Agent]:
    with running_agent() as agent:
        yield agent


def test_request_that_there_is_no_memory_for_is_refused_and_the_session_goes_on(agent: Agent) -> None:
    host = agent.host
    other = host.open(_exec("sh", "-c", "read line; exit 7"))
    host.wait(lambda: other.started is not None)
    _limit_memory(agent)
    large = Request(Op.IDENTITY, b"\1\0" + string(b"x" * LONG))
    result = done(host, large)
    assert result.status == Status.BUSY
    assert result.message.startswith("not enough memory")
    _give_memory_back(agent)
    host.write(other, b"now\n", end=True)
    assert host.finish(other).exit.code == 7


def test_input_that_there_is_no_memory_for_ends_the_command_and_is_not_taken_for_all(
    agent: Agent, tmp_path: Path
) -> None:
    host = agent.host
    # the pipe takes 64 KiB, and what is more has to be kept
    stream = host.open(_exec("sh", "-c", f"sleep 5; cat >{tmp_path}/got; touch {tmp_path}/whole"))
    host.write(stream, bytes(65536))
    _limit_memory(agent)
    while stream.result is None:
        host.wait(lambda: stream.input_credit > 0 or stream.result is not None)
        host.write(stream, bytes(min(stream.input_credit, 4096)))
    assert stream.result.status == Status.BUSY
    assert stream.result.message.startswith("not enough memory")
    _give_memory_back(agent)
    eventually(lambda: not agent.children(), what="what was started is gone")
    assert not (tmp_path / "whole").exists()
    assert host.run(_exec("true")).exit.code == 0


def test_requests_are_answered_whatever_memory_there_is(agent: Agent) -> None:
    host = agent.host
    _limit_memory(agent)
    streams = [host.open(messages.stat("/etc")) for _ in range(200)]
    for stream in streams:
        host.finish(stream)
    _give_memory_back(agent)
    assert {stream.result.status for stream in streams if stream.result} <= {Status.OK, Status.BUSY}
    assert host.run(_exec("true")).exit.code == 0
