"""The caller of a command in a guest, and connecting the two, whatever the transport."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from banger.core.exec import ExitStatus, Stream, check_signal, check_terminal_size
from banger.core.models import Vm
from banger.core.ports import GuestProcess
from banger.core.progress import OperationEvent


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal for the command, its name without ``SIG``. Raises ``usage`` for one that cannot be sent."""

    name: str

    def __post_init__(self) -> None:
        """Check it."""
        check_signal(self.name)


@dataclass(frozen=True, slots=True)
class Resize:
    """The caller's terminal has another size. Raises ``usage`` for one that no terminal has."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        """Check it."""
        check_terminal_size(self.rows, self.columns)


class Caller(Protocol):
    """The other end of a command: who asked for it, reads its output and may leave at any time."""

    @property
    def has_input(self) -> bool:
        """False if it is known already that there is none."""
        ...

    async def next_input(self) -> bytes | None:
        """The next piece of standard input, or None at its end."""
        ...

    async def taken(self, size: int) -> None:
        """So many bytes of input were passed on: as many more may come."""
        ...

    async def next_control(self) -> Signal | Resize | None:
        """What else the caller asks for, or None when no more will come."""
        ...

    async def put_output(self, stream: Stream, data: bytes) -> None:
        """Hand output over, waiting while the caller does not take it."""
        ...

    async def put_event(self, event: OperationEvent) -> None:
        """Tell of the work that comes before the command."""
        ...

    async def put_started(self, vm: Vm) -> None:
        """The command runs: from here on a failure is its own, not banger's."""
        ...


async def converse(caller: Caller, process: GuestProcess) -> ExitStatus:
    """Carry input one way and output the other until the command has ended and its output is handed over.

    The process is closed in the end, however that comes.
    """
    tasks = [asyncio.create_task(_control(caller, process))]
    if caller.has_input:
        tasks.append(asyncio.create_task(_feed(caller, process)))
    else:
        process.write_eof()
    try:
        async for stream, chunk in process.output():
            await caller.put_output(stream, chunk)
        return await process.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await process.close()


async def _feed(caller: Caller, process: GuestProcess) -> None:
    """Pass standard input on as fast as the command takes it; what it will never read is thrown away."""
    wanted = True
    while (data := await caller.next_input()) is not None:
        wanted = wanted and await process.write_stdin(data)
        await caller.taken(len(data))
    process.write_eof()


async def _control(caller: Caller, process: GuestProcess) -> None:
    while (control := await caller.next_control()) is not None:
        match control:
            case Signal(name):
                process.send_signal(name)
            case Resize(rows, columns):
                process.resize(rows, columns)
