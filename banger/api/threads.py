"""Blocking work of a request, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from banger.core.cancel import CancelToken

T = TypeVar("T")


async def run_in_thread(request: Request, token: CancelToken, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread and wait for it; ``token`` is cancelled when the caller hangs up meanwhile.

    Args:
        request: whose body has been read, if it has one.
        token: what ``work`` looks at.
        work: raises soon after the token was cancelled.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work))
    hanging_up = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({working, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            token.cancel("the caller hung up")
        return await working
    finally:
        token.cancel("the request has ended")
        hanging_up.cancel()
        working.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
