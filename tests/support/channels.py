"""Channels in an event loop of their own, as the daemon has them, for tests that are not asynchronous themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from banger.core.exec import ExecRequest, ExitStatus, Stream, Terminal
from banger.core.models import GuestAccess
from banger.core.operation import Operation
from banger.guest.channel import GuestChannels
from banger.guest.sessions import GuestSession

T = TypeVar("T")


@dataclass(slots=True)
class Finished:
    """What a command left."""

    status: ExitStatus
    stdout: bytes
    stderr: bytes


@dataclass(slots=True)
class Channels:
    """The object under test and the loop it lives in."""

    guests: GuestChannels
    loop: asyncio.AbstractEventLoop = field(repr=False)

    def do(self, work: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
        """Run ``work`` in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def exec(self, access: GuestAccess, *argv: str, stdin: bytes = b"", **options: Any) -> Finished:
        """Run a command to its end."""
        return self.do(self.exec_async(access, *argv, stdin=stdin, **options))

    async def exec_async(self, access: GuestAccess, *argv: str, stdin: bytes = b"", **options: Any) -> Finished:
        """The same, inside the loop."""
        session = await self.guests.open_session(access, ExecRequest(argv, **options))
        try:
            return await finish(session, stdin)
        finally:
            await session.close()


async def finish(session: GuestSession, stdin: bytes = b"") -> Finished:
    """Feed ``stdin`` and read to the end at the same time."""

    async def feed() -> None:
        await session.write_stdin(stdin)
        session.write_eof()

    feeding = asyncio.create_task(feed())
    collected = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    async for stream, data in session.output():
        collected[stream] += data
    status = await session.wait()
    await feeding
    return Finished(status, bytes(collected[Stream.STDOUT]), bytes(collected[Stream.STDERR]))


async def read_until(session: GuestSession, text: bytes) -> bytes:
    """Read output until ``text`` is in it."""
    seen = b""
    async for _, data in session.output():
        seen += data
        if text in seen:
            return seen
    raise AssertionError(f"{text!r} never came; got {seen!r}")


@contextmanager
def channels() -> Iterator[Channels]:
    """Fresh channels; everything they hold is dropped in the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="channels-loop")
    thread.start()
    made = Channels(GuestChannels(loop), loop)
    try:
        yield made
    finally:
        made.do(made.guests.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def operation() -> Operation:
    """An operation that has begun."""
    begun = Operation("vm.start", "box")
    begun.begin()
    return begun


TERMINAL = Terminal(24, 80, "xterm")
