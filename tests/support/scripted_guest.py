"""A guest whose commands are coroutines of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from banger.core.exec import ExecRequest, ExitStatus, Stream
from banger.core.guest_facts import GuestFacts
from banger.core.ports import GuestPath

Script = Callable[["ScriptedProcess"], Awaitable[ExitStatus]]


class ScriptedProcess:
    """A command: what it is, as a script sees and plays it."""

    def __init__(self, script: Script) -> None:
        self.inputs: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.wishes: asyncio.Queue[object] = asyncio.Queue()
        self.was_closed = False
        self._outputs: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue()
        self._work = asyncio.create_task(self._play(script))

    def say(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """Put output out."""
        self._outputs.put_nowait((stream, data))

    async def _play(self, script: Script) -> ExitStatus:
        try:
            return await script(self)
        finally:
            self._outputs.put_nowait(None)

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while (chunk := await self._outputs.get()) is not None:
            yield chunk

    async def write_stdin(self, data: bytes) -> bool:
        self.inputs.put_nowait(data)
        return True

    def write_eof(self) -> None:
        self.inputs.put_nowait(None)

    def send_signal(self, name: str) -> None:
        self.wishes.put_nowait(name)

    def resize(self, rows: int, columns: int) -> None:
        self.wishes.put_nowait((rows, columns))

    async def wait(self) -> ExitStatus:
        return await self._work

    async def close(self) -> None:
        self.was_closed = True
        self._work.cancel()


class ScriptedGuest:
    """A guest in which every command, and every copy, plays the same script."""

    def __init__(self, script: Script, path: GuestPath | None = None) -> None:
        self.requests: list[object] = []
        self.processes: list[ScriptedProcess] = []
        self._script = script
        self._path = path or GuestPath("missing")
        self.figures = GuestFacts(hostname="web", uptime_ms=5000)

    @property
    def files(self) -> ScriptedGuest:
        return self

    @property
    def machine(self) -> ScriptedGuest:
        return self

    async def facts(self) -> GuestFacts:
        self.requests.append("facts")
        return self.figures

    async def exec(self, request: ExecRequest) -> ScriptedProcess:
        return self._begin(request)

    async def ssh(self) -> ScriptedProcess:
        return self._begin("ssh")

    async def stat(self, path: str) -> GuestPath:
        self.requests.append(path)
        return self._path

    async def put(self, directory: str) -> ScriptedProcess:
        return self._begin(directory)

    async def get(self, path: str) -> ScriptedProcess:
        return self._begin(path)

    def _begin(self, wish: object) -> ScriptedProcess:
        self.requests.append(wish)
        self.processes.append(ScriptedProcess(self._script))
        return self.processes[-1]
