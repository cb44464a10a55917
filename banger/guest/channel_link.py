"""Starting commands in one guest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

import asyncssh

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import Terminal
from banger.core.models import GuestAccess
from banger.core.names import new_id
from banger.guest.channel_pool import ConnectionPool
from banger.guest.command import (
    end_command,
    fits_one_request,
    launch_command,
    launcher_path,
    launcher_script,
    upload_command,
)
from banger.guest.sessions import ANSWER_TIMEOUT_S, GuestSession

#: How long a guest may take to kill what an abandoned command has started.
_END_TIMEOUT_S = 10.0
#: How long a guest may take to start a command; its connection is given up after as long a silence.
_START_TIMEOUT_S = 60.0


class GuestLink:
    """One guest's side of :class:`GuestChannels`. Belongs to the event loop's thread."""

    def __init__(self, access: GuestAccess) -> None:
        """Connect nothing yet."""
        self.access = access
        self._pool = ConnectionPool(access)
        self._endings: set[asyncio.Task[None]] = set()  # a task that nobody refers to may be collected half done

    async def connect(self, timeout_s: float) -> None:
        """Connect to a guest that may still be booting; nothing to do if there is a live connection."""
        await self._pool.connect(timeout_s)

    async def open(self, command: str, tty: Terminal | None = None, exec_id: str = "") -> GuestSession:
        """Start ``command``, which carries ``exec_id``; raises what :meth:`GuestChannels.open_session` raises."""
        if not fits_one_request(command):
            command = await self._upload(command)
        return await self._open(command, tty, exec_id)

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are kept, and how many of them a command uses now."""
        return self._pool.kept, self._pool.used

    def drop(self) -> None:
        """Close every connection, for good."""
        self._pool.close()

    async def wait_dropped(self) -> None:
        """Wait until all that :meth:`drop` began has come to its end."""
        await self._pool.wait_closed()
        if self._endings:
            await asyncio.wait(self._endings)

    def _end_all(self, exec_id: str) -> asyncio.Task[None]:
        """Begin to kill what an exec has started: its caller has left, and may be gone before this is done."""
        ending = asyncio.create_task(self._end(exec_id))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    async def _end(self, exec_id: str) -> None:
        with suppress(BangerError, TimeoutError):  # a guest that does not answer is no better off with the news
            async with asyncio.timeout(_END_TIMEOUT_S):
                session = await self._open(end_command(exec_id))
                try:
                    await session.wait()
                finally:
                    await session.close()

    async def _open(self, command: str, tty: Terminal | None = None, exec_id: str = "") -> GuestSession:
        """Start a command that fits.

        A connection can be dead before anybody notices. As long as the guest has not given the command a channel it
        cannot have run, so that is tried once more on a new connection; after that, never.
        """
        try:
            return await self._start(command, tty, exec_id)
        except _NotBegunError:
            self._pool.distrust()
        try:
            return await self._start(command, tty, exec_id)
        except _NotBegunError as error:
            raise self._error(ErrorKind.UNAVAILABLE, "the guest does not take commands", error) from error

    async def _start(self, command: str, tty: Terminal | None, exec_id: str) -> GuestSession:
        connection = await self._pool.take()
        session = GuestSession(
            self.access.vm_id,
            lambda clean: self._pool.give_back(connection, clean=clean),
            (lambda: self._end_all(exec_id)) if exec_id else None,
        )
        try:
            await _in_time(session.start(connection, command, tty))
        except (asyncssh.Error, OSError) as error:
            lost = connection.is_closed() or isinstance(error, TimeoutError)
            self._pool.give_back(connection, clean=False)
            if not session.opened:
                raise _NotBegunError(str(error)) from error
            if lost:
                what = "lost the connection to the guest while a command was started"
                raise self._error(ErrorKind.UNKNOWN_OUTCOME, what, error) from error
            raise self._error(ErrorKind.UNAVAILABLE, "the guest refused to start a command", error) from error
        return session

    async def _upload(self, command: str) -> str:
        """Put a long command into the guest; returns the short one that runs it."""
        path = launcher_path(new_id())
        session = await self._open(upload_command(path))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await session.write_stdin(launcher_script(command))
        except TimeoutError as error:
            await session.close()
            raise self._error(ErrorKind.TIMEOUT, "the guest does not take a long command", error) from error
        answer = await session.answer()
        if answer.status.code != 0:
            cause = (answer.stdout + answer.stderr).decode(errors="replace").strip()
            raise self._error(ErrorKind.UNAVAILABLE, "the guest does not take a long command", cause)
        return launch_command(path)

    def _error(self, kind: ErrorKind, message: str, cause: object) -> BangerError:
        vm_id = self.access.vm_id
        return BangerError(kind, message, subject=vm_id, cause=str(cause), hint=f"banger vm why {vm_id}")


async def _in_time(starting: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            await starting
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {_START_TIMEOUT_S:g} s") from error


class _NotBegunError(Exception):
    """The guest did not give the command a channel."""
