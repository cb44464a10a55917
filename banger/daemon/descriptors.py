"""The daemon's file descriptors: raising the limit, and limiting log lines when all are in use."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Any

from loguru import logger

#: More than any installation uses; a process that closes all it might have open takes its time over more.
_WANTED = 65_536
#: asyncio tries to accept a connection as often as its backlog is long, every second, and complains each time
#: (CPython: ``asyncio/selector_events.py``, ``_accept_connection``).
_SAID_EVERY_S = 60.0
_ACCEPT_FAILED = "socket.accept() out of system resource"


def raise_limit() -> None:
    """Have as many descriptors as we are allowed to: distributions begin with 1024.

    VMMs inherit it, and a thousand published ports are more than that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def quieten(loop: asyncio.AbstractEventLoop, now: Callable[[], float] = time.monotonic) -> None:
    """Have ``loop`` tell once a minute, in one line, that it can accept no connection; other errors as ever."""
    told_at = -_SAID_EVERY_S

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal told_at
        if context.get("message") != _ACCEPT_FAILED:
            loop.default_exception_handler(context)
        elif now() - told_at >= _SAID_EVERY_S:
            told_at = now()
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            logger.error("no connection can be accepted: {} (limit {})", context.get("exception"), limit)

    loop.set_exception_handler(handle)
