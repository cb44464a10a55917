"""The real agent, run on this host behind a Unix socket as QEMU has it, and the daemon's end of it in a loop of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from banger.agent.endpoint import Endpoint
from banger.agent.guest import AgentGuest
from banger.agent.guests import AgentGuests
from banger.core import clock
from banger.core.errors import BangerError
from banger.core.exec import ExecRequest, ExitStatus, Stream, Terminal
from banger.core.models import Vm, VmSpec, VmState
from banger.core.operation import Operation
from banger.core.ports import GuestProcess
from banger.guest.agent_program import agent_program

T = TypeVar("T")
TERMINAL = Terminal(24, 80, "xterm")


def why_no_agent() -> str:
    """The reason to skip, or an empty string."""
    try:
        agent_program()
    except BangerError as error:
        return f"{error.message}: {error.hint}"
    return ""


needs_agent = pytest.mark.skipif(bool(why_no_agent()), reason=why_no_agent())


@dataclass(slots=True)
class Finished:
    """What a command left."""

    status: ExitStatus
    stdout: bytes
    stderr: bytes


class RunningAgent:
    """Serves one connection at a time at ``path``, each with an agent process of its own."""

    def __init__(
        self, directory: Path, served_by: str = "-f", within: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        """Listen.

        Args:
            directory: the socket is there, and a copy of the program.
            served_by: the program's option for the connection: ``-p`` for one that only dials.
            within: where the program is started: in another namespace, perhaps.
        """
        self._option, self._within = served_by, within
        self.path = directory / "ga.sock"
        self.greeted = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._program = directory / "banger-agent"
        self._program.write_bytes(agent_program())
        self._program.chmod(0o755)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, name="agent")
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    os.set_inheritable(connection.fileno(), True)
                    argv = [str(self._program), "serve", self._option, str(connection.fileno())]
                    with self._within():
                        self.processes.append(subprocess.Popen(argv, pass_fds=[connection.fileno()]))
                    self.greeted += 1
                self.processes[-1].wait()

    def kill(self) -> None:
        """The guest is gone."""
        for process in self.processes:
            process.kill()

    def close(self) -> None:
        """Serve nobody any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        while self._thread.is_alive():
            self.kill()  # one may have been started just now
            self._thread.join(0.1)
        for process in self.processes:
            process.wait()


@dataclass(slots=True)
class AgentWorld:
    """The object under test, a guest and the loop."""

    guests: AgentGuests
    agent: RunningAgent
    loop: asyncio.AbstractEventLoop = field(repr=False)
    vm: Vm = field(default_factory=lambda: Vm("0" * 12, "web", VmSpec("debian"), VmState.RUNNING, clock.now()))

    @property
    def guest(self) -> AgentGuest:
        """The guest."""
        return self.guests.session(self.vm)

    def do(self, work: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
        """Run ``work`` in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def exec(self, *argv: str, stdin: bytes = b"", **options: Any) -> Finished:
        """Run a command to its end."""
        return self.do(self.exec_async(*argv, stdin=stdin, **options))

    async def start(self, *argv: str, **options: Any) -> GuestProcess:
        """Start a command."""
        return await self.guest.exec(ExecRequest(argv, **options))

    async def exec_async(self, *argv: str, stdin: bytes = b"", **options: Any) -> Finished:
        """Run a command to its end, inside the loop."""
        process = await self.start(*argv, **options)
        try:
            return await finish(process, stdin)
        finally:
            await process.close()


async def finish(process: GuestProcess, stdin: bytes = b"") -> Finished:
    """Feed ``stdin`` and read to the end at the same time."""

    async def feed() -> None:
        await process.write_stdin(stdin)
        process.write_eof()

    feeding = asyncio.create_task(feed())
    collected = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    async for stream, data in process.output():
        collected[stream] += data
    status = await process.wait()
    await feeding
    return Finished(status, bytes(collected[Stream.STDOUT]), bytes(collected[Stream.STDERR]))


async def read_until(process: GuestProcess, text: bytes) -> bytes:
    """Read output until ``text`` is in it."""
    seen = b""
    async for _, data in process.output():
        seen += data
        if text in seen:
            return seen
    raise AssertionError(f"{text!r} never came; got {seen!r}")


@contextmanager
def guests_behind(path: Path) -> Iterator[tuple[AgentGuests, asyncio.AbstractEventLoop]]:
    """The daemon's end of the byte stream of one guest, and the loop that it is served in; nothing is left in the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="agent-loop")
    thread.start()
    guests = AgentGuests(loop, lambda _: Endpoint(path))
    try:
        yield guests, loop
    finally:
        asyncio.run_coroutine_threadsafe(guests.close(), loop).result(30.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def agent_world(directory: Path) -> Iterator[AgentWorld]:
    """A guest and the daemon's end of its byte stream; nothing is left in the end."""
    with ExitStack() as stack:
        agent = RunningAgent(directory)
        stack.callback(agent.close)
        guests, loop = stack.enter_context(guests_behind(agent.path))
        yield AgentWorld(guests, agent, loop)


def operation() -> Operation:
    """An operation that has begun."""
    begun = Operation("vm.start", "box")
    begun.begin()
    return begun
