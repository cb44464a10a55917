"""A pytest plugin: the guest agent as a process of this machine, and the host's side of it.

Load it with ``pytest_plugins = ("tests.support.agent_fixtures",)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent, Host, running_agent
from tests.support.agent_world import AgentWorld, agent_world


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    """One agent for all tests of a module."""
    with running_agent() as running:
        yield running


@pytest.fixture
def host(agent: Agent) -> Host:
    """The host of :func:`agent`, that speaks single frames."""
    return agent.host


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AgentWorld]:
    """An agent of its own behind the daemon's `Guests`."""
    place = tmp_path / "agent"
    place.mkdir()
    with agent_world(place) as made:
        yield made
