"""The agent that runs in guests, built from ``guest-agent/`` (see docs/agent.md)."""

from __future__ import annotations

from importlib import resources

from banger.core.errors import BangerError, ErrorKind


def agent_program() -> bytes:
    """A static executable. Raises ``unavailable`` in a source tree in which it was not built."""
    try:
        return (resources.files("banger.guest") / "data" / "banger-agent").read_bytes()
    except FileNotFoundError as error:
        raise BangerError(
            ErrorKind.UNAVAILABLE, "the guests' agent was not built", subject="banger-agent",
            cause="it is made from guest-agent/ of the sources", hint="make setup",
        ) from error  # fmt: skip
