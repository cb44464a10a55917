"""The events of an operation, awaitable in the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from banger.core.progress import OperationEvent
from banger.core.waiter import Waiter


class News:
    """A waiter's events, awaitable. ``None`` from :meth:`next` means that there is an outcome."""

    def __init__(self, waiter: Waiter) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[OperationEvent | None] = asyncio.Queue()
        waiter.subscribe(lambda event: hand_over(self._loop, self._queue, event))
        waiter.when_answered(lambda: hand_over(self._loop, self._queue, None))

    async def next(self) -> OperationEvent | None:
        """The next event."""
        return await self._queue.get()


def hand_over(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Any], item: Any) -> None:
    """Put an item into a queue of the loop's, from any thread; nobody waits for it once the loop is closed."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(queue.put_nowait, item)
