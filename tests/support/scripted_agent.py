"""The agent's end of a VM's byte stream, played by a test: frame by frame, honest or not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from banger.agent.endpoint import Endpoint
from banger.agent.guest import AgentGuest
from banger.agent.link import AgentLink
from banger.agent.messages import Exit, Result
from banger.agent.wire import (
    HELLO_BYTES,
    MAGIC,
    PROTOCOL,
    Flag,
    Frame,
    FrameDecoder,
    Hello,
    Kind,
    Welcome,
)
from banger.core.exec import ExecRequest, ExitStatus, Stream
from banger.core.ports import GuestProcess

#: Nobody waits longer for a frame.
_PATIENCE_S = 10.0


class ScriptedAgent:
    """One connection of a host's, from its greeting on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hello: Hello
        self.tag = 0x01020304
        self.welcome = Welcome(
            nonce=b"", protocol=PROTOCOL, lowest=PROTOCOL, highest=PROTOCOL, reason=0, tag=self.tag, ended_streams=0,
            boot=secrets.token_bytes(16), version="test", most_streams=256, features=0,
        )  # fmt: skip
        self._reader, self._writer = reader, writer
        self._decoder = FrameDecoder(self.tag, from_agent=False)
        self._frames: list[Frame] = []

    async def meet(self, **changes: object) -> None:
        """Answer the greeting, with a WELCOME changed like this."""
        await self.hear()
        self.write(self.welcome._replace(**{"nonce": self.hello.nonce, **changes}).encode())  # type: ignore[arg-type]

    async def hear(self) -> None:
        """Wait for a greeting."""
        await self._reader.readuntil(MAGIC)
        record = MAGIC + await self._reader.readexactly(HELLO_BYTES - len(MAGIC))
        self.hello = Hello.decode(record)

    def write(self, data: bytes) -> None:
        """Say these very bytes."""
        self._writer.write(data)

    def send(self, stream: int, kind: Kind, payload: bytes = b"", flags: Flag = Flag.NONE) -> None:
        """Say a frame."""
        self.write(Frame(stream, kind, flags, payload).encode(self.tag))

    def say(self, stream: int, data: bytes, flags: Flag = Flag.NONE) -> None:
        """Output."""
        self.send(stream, Kind.DATA, data, flags)

    def finish(self, stream: int, code: int = 0) -> None:
        """The command has ended."""
        self.send(stream, Kind.RESULT, Result(0, fields=Exit(killed=False, code=code).encode()).encode())

    async def next(self) -> Frame:
        """The host's next frame."""
        async with asyncio.timeout(_PATIENCE_S):
            while not self._frames:
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError("the host has closed the connection")
                self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    async def expect(self, kind: Kind) -> Frame:
        """The host's next frame of that kind; credit for the session passes by."""
        while (frame := await self.next()).kind is not kind:
            assert frame.kind is Kind.CREDIT, frame
        return frame

    async def gone(self) -> None:
        """Wait until the host has closed the connection."""
        async with asyncio.timeout(_PATIENCE_S):
            with suppress(ConnectionError):
                while await self._reader.read(65536):
                    pass


@asynccontextmanager
async def agent_at(
    path: Path, script: Callable[[ScriptedAgent], Awaitable[None]]
) -> AsyncIterator[list[ScriptedAgent]]:
    """Listen at ``path``, and play ``script`` for every connection; what it raises is raised in the end."""
    met: list[ScriptedAgent] = []
    failures: list[BaseException] = []
    playing: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        playing.add(asyncio.current_task())
        met.append(ScriptedAgent(reader, writer))
        try:
            await script(met[-1])
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:  # noqa: BLE001  # told below
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield met
    finally:
        server.close()
        for task in playing:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in playing if task), return_exceptions=True)
    if failures:
        raise failures[0]


Script = Callable[[ScriptedAgent], Awaitable[None]]
Work = Callable[[AgentGuest], Awaitable[object]]


def play(tmp_path: Path, script: Script, work: Work, is_attended: Callable[[], bool] = lambda: True) -> object:
    """Do ``work`` with a guest whose agent plays ``script``; ``is_attended`` is what its machine says of it."""

    async def both() -> object:
        path = tmp_path / "ga.sock"
        async with agent_at(path, script):
            link = AgentLink("vm0", Endpoint(path), is_attended)
            try:
                return await work(AgentGuest("vm0", link))
            finally:
                link.drop()

    return asyncio.run(both())


async def collected(process: GuestProcess) -> tuple[bytes, bytes, ExitStatus]:
    """Read a command to its end: standard output, standard error, how it ended."""
    said = {Stream.STDOUT: b"", Stream.STDERR: b""}
    async for stream, data in process.output():
        said[stream] += data
    status = await process.wait()
    await process.close()
    return said[Stream.STDOUT], said[Stream.STDERR], status


async def run_true(guest: AgentGuest) -> object:
    """Run a command that says nothing to its end."""
    return await collected(await guest.exec(ExecRequest(("true",))))


async def served(agent: ScriptedAgent) -> int:
    """Meet the host and take its request; the stream's number."""
    await agent.meet()
    stream = (await agent.expect(Kind.OPEN)).stream
    agent.send(stream, Kind.STARTED)
    return stream
