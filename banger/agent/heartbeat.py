"""Finding out that a guest's agent has ended while somebody waits for it, where the connection does not tell.

A virtio-serial port stays connected whoever is at its other end. So an agent that says nothing for a while is asked
whether it lives; only if it does not answer, its machine is asked whether the guest still has the port open. A guest
that stands still, or is too busy to answer, has: it is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

#: After so long a silence the agent is asked, and after as long again its machine; that is asked again after twice as
#: long, and so on up to the second.
QUIET_S, LONGEST_S = 2.0, 30.0
#: Why nothing more comes then. In an image with an init of its own nobody starts another one.
GONE = "its agent was killed, and no other one has taken its place"


class Asked(Protocol):
    """A session whose agent may have ended."""

    @property
    def is_waited_for(self) -> bool:
        """Somebody waits for what the agent will say."""
        ...

    def beat(self) -> None:
        """Ask the agent whether it lives, unless it is being asked."""
        ...

    def end(self, reason: str) -> None:
        """The agent has ended."""
        ...


class Heartbeat:
    """Belongs to the event loop's thread. Does nothing while nobody waits."""

    def __init__(self, session: Asked, is_attended: Callable[[], bool]) -> None:
        """``is_attended`` asks the machine; it is called in a thread."""
        self._session = session
        self._is_attended = is_attended
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._running: asyncio.Task[None] | None = None

    def heard(self) -> None:
        """The agent said something."""
        self._heard_at = self._loop.time()

    def run(self) -> None:
        """Somebody begins to wait. Idempotent."""
        if self._running is None or self._running.done():
            self._heard_at = self._loop.time()
            self._running = self._loop.create_task(self._run())

    def stop(self) -> None:
        """The session is over."""
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        patience_s = QUIET_S  # beyond the first silence
        while self._session.is_waited_for:
            quiet_s = self._loop.time() - self._heard_at
            if quiet_s < QUIET_S:
                patience_s = QUIET_S
                await asyncio.sleep(QUIET_S - quiet_s)
                continue
            self._session.beat()
            heard_at = self._heard_at
            await asyncio.sleep(patience_s)
            if self._heard_at > heard_at or not self._session.is_waited_for:
                continue
            patience_s = min(2 * patience_s, LONGEST_S)
            if not await asyncio.to_thread(self._is_attended):
                self._session.end(GONE)
