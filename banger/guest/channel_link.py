"""One VM's connection: made when it is first needed, kept, and made anew once it was lost."""

from __future__ import annotations

import asyncio

import asyncssh

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import GuestAccess
from banger.core.names import new_id
from banger.guest.channel_dial import dial, redial
from banger.guest.command import (
    Terminal,
    fits_one_request,
    launch_command,
    launcher_path,
    launcher_script,
    upload_command,
)
from banger.guest.sessions import Session


class GuestLink:
    """The kept connection to one guest. Belongs to the event loop's thread."""

    def __init__(self, access: GuestAccess) -> None:
        """Connect nothing yet."""
        self.access = access
        self._connection: asyncssh.SSHClientConnection | None = None
        self._lock = asyncio.Lock()
        self._dropped = False

    async def connect(self, timeout_s: float) -> None:
        """Connect to a guest that may still be booting; raises what :func:`dial` raises."""
        async with self._lock:
            if self._live() is None:
                self._keep(await dial(self.access, timeout_s))

    async def open(self, command: str, tty: Terminal | None = None) -> Session:
        """Start ``command``; raises what :meth:`GuestChannels.open_session` raises."""
        if not fits_one_request(command):
            command = await self._upload(command)
        return await self._open(command, tty)

    async def _open(self, command: str, tty: Terminal | None = None) -> Session:
        """Start a command that fits.

        A connection can be dead before anybody notices. As long as the guest has not given the command a channel it
        cannot have run, so that is tried once more on a new connection; after that, never.
        """
        connection = await self._connected()
        try:
            return await self._start(connection, command, tty)
        except _NotBegunError:
            self._forget(connection)
        try:
            return await self._start(await self._connected(), command, tty)
        except _NotBegunError as error:
            raise self._unavailable("the connection to the guest does not last", str(error)) from error

    def drop(self) -> None:
        """Close the connection for good."""
        self._dropped = True
        if self._connection is not None:
            self._connection.close()

    async def _upload(self, command: str) -> str:
        """Put a long command into the guest; returns the short one that runs it."""
        path = launcher_path(new_id())
        session = await self._open(upload_command(path))
        try:
            await session.write_stdin(launcher_script(command))
            session.write_eof()
            complaint = b"".join([data async for _, data in session.output()])
            status = await session.wait()
        finally:
            await session.close()
        if status.code != 0:
            cause = complaint.decode(errors="replace").strip()
            raise self._unavailable("the guest does not take a long command", cause)
        return launch_command(path)

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._lock:
            return self._live() or self._keep(await redial(self.access))

    def _live(self) -> asyncssh.SSHClientConnection | None:
        connection = self._connection
        return None if connection is None or connection.is_closed() else connection

    def _keep(self, connection: asyncssh.SSHClientConnection) -> asyncssh.SSHClientConnection:
        if self._dropped:
            connection.close()
            raise self._unavailable("the VM was stopped meanwhile")
        self._connection = connection
        return connection

    def _forget(self, connection: asyncssh.SSHClientConnection) -> None:
        connection.abort()
        if self._connection is connection:
            self._connection = None

    async def _start(self, connection: asyncssh.SSHClientConnection, command: str, tty: Terminal | None) -> Session:
        session = Session(self.access.vm_id)
        try:
            await session.start(connection, command, tty)
        except (asyncssh.Error, OSError) as error:
            lost = connection.is_closed() or getattr(error, "code", None) == asyncssh.OPEN_CONNECT_FAILED
            if not lost:
                raise self._unavailable("the guest refused to run a command", str(error)) from error
            if not session.opened:
                raise _NotBegunError(str(error)) from error
            raise BangerError(
                ErrorKind.UNKNOWN_OUTCOME,
                "lost the connection to the guest while a command was started",
                subject=self.access.vm_id,
                cause=str(error),
                hint=f"banger vm show {self.access.vm_id}",
            ) from error
        return session

    def _unavailable(self, message: str, cause: str = "") -> BangerError:
        vm_id = self.access.vm_id
        return BangerError(ErrorKind.UNAVAILABLE, message, subject=vm_id, cause=cause, hint=f"banger vm show {vm_id}")


class _NotBegunError(Exception):
    """The connection was lost before the guest gave the command a channel."""
