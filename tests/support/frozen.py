"""Whether file systems of a guest stand still, as those notice who write there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from banger.agent.guest import AgentGuest
from banger.core.exec import ExecRequest
from banger.core.ports import GuestProcess

#: What an emulated guest on a busy host needs for a write, many times over; and for one that it must not do.
PATIENCE_S, STILL_S = 60.0, 1.0


def freezes_and_thaws(*mount_points: str) -> Callable[[AgentGuest], Coroutine[Any, Any, None]]:
    """Freeze them, see that nothing is written, thaw them, and see that it is."""

    async def check(guest: AgentGuest) -> None:
        assert await guest.machine.freeze(mount_points, 60) == len(mount_points)
        writers = [await writer(guest, place) for place in mount_points]
        for process in writers:
            assert await is_held_up(process)
        assert await guest.machine.thaw(mount_points) == len(mount_points)
        for process in writers:
            assert (await asyncio.wait_for(process.wait(), PATIENCE_S)).code == 0

    return check


async def writer(guest: AgentGuest, place: str) -> GuestProcess:
    """A command that writes there once."""
    return await guest.exec(ExecRequest(("sh", "-c", f"echo x >{place}/written")))


async def is_held_up(process: GuestProcess) -> bool:
    """The command does not end for a while."""
    try:
        await asyncio.wait_for(process.wait(), STILL_S)
    except TimeoutError:
        return True
    return False
