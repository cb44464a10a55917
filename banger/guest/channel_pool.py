"""The pool of ssh connections to one guest, each for one command at a time.

ssh could carry many commands on one connection, but dropbear before 2025.87 cannot: when a command ends while another
one is being started, it closes the new one's channel, starts its command all the same, and drops the connection with
everything on it as soon as that command prints (github.com/mkj/dropbear/issues/321). So commands that run at the same
time have a connection each, and a connection rests for one round trip between two commands.
"""

from __future__ import annotations

import asyncio

import asyncssh

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import GuestAccess
from banger.guest.channel_dial import dial, redial

#: Connections that are kept while no command uses them.
_IDLE_LIMIT = 4
#: dropbear turns a sixth peer away until one of the first five has logged in.
_DIALS_AT_ONCE = 3
#: How long a command waits for a connection to rest before it makes one of its own.
_REST_TIMEOUT_S = 1.0


class ConnectionPool:
    """Connections to one guest. Belongs to the event loop's thread."""

    def __init__(self, access: GuestAccess) -> None:
        """Connect nothing yet."""
        self._access = access
        self._all: set[asyncssh.SSHClientConnection] = set()
        self._idle: list[asyncssh.SSHClientConnection] = []
        self._resting: set[asyncio.Task[None]] = set()
        self._dialling = asyncio.Semaphore(_DIALS_AT_ONCE)
        self._closed = False

    async def connect(self, timeout_s: float) -> None:
        """Have a connection, to a guest that may still be booting; raises what :func:`dial` raises."""
        async with self._dialling:
            if all(connection.is_closed() for connection in self._all):
                self._idle.append(self._admit(await dial(self._access, timeout_s)))

    async def take(self) -> asyncssh.SSHClientConnection:
        """A connection for one command, a new one if none is free; raises what :func:`redial` raises."""
        connection = await self._free()
        if connection is None:
            async with self._dialling:
                connection = await self._free() or self._admit(await redial(self._access))
        return connection

    def give_back(self, connection: asyncssh.SSHClientConnection, *, clean: bool) -> None:
        """The command is over. Unless its end was ``clean``, it may still run: the connection is closed then."""
        if not clean or self._closed or connection.is_closed():
            self._dismiss(connection)
            return
        rest = asyncio.create_task(self._rest(connection))
        self._resting.add(rest)
        rest.add_done_callback(self._resting.discard)

    @property
    def kept(self) -> int:
        """How many connections there are, used or not."""
        return len(self._all)

    @property
    def used(self) -> int:
        """How many of them a command uses now."""
        return len(self._all) - len(self._idle) - len(self._resting)

    def distrust(self) -> None:
        """A connection turned out to be dead: what is idle is no better."""
        while self._idle:
            self._dismiss(self._idle.pop())

    def close(self) -> None:
        """Close everything, for good."""
        self._closed = True
        for connection in list(self._all):
            connection.close()

    async def wait_closed(self) -> None:
        """Wait until all that :meth:`close` began has come to its end."""
        for connection in list(self._all):
            await connection.wait_closed()
        if self._resting:
            await asyncio.wait(self._resting)

    async def _free(self) -> asyncssh.SSHClientConnection | None:
        """An idle connection, after a moment's wait if one is about to be."""
        while True:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self._dismiss(connection)
            if not self._resting:
                return None
            done, _ = await asyncio.wait(self._resting, timeout=_REST_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return None

    async def _rest(self, connection: asyncssh.SSHClientConnection) -> None:
        """Make sure that dropbear has finished with the last command: it answers only after it has.

        asyncssh's keepalive is a round trip, too, but cannot be waited for by any public means.
        """
        await connection._make_global_request(b"keepalive@openssh.com")  # noqa: SLF001
        if connection.is_closed() or self._closed or len(self._idle) >= _IDLE_LIMIT:
            self._dismiss(connection)
        else:
            self._idle.append(connection)

    def _admit(self, connection: asyncssh.SSHClientConnection) -> asyncssh.SSHClientConnection:
        if self._closed:
            connection.close()
            vm_id = self._access.vm_id
            raise BangerError(
                ErrorKind.UNAVAILABLE, "the VM was stopped meanwhile", subject=vm_id, hint=f"banger vm why {vm_id}"
            )
        self._all.add(connection)
        return connection

    def _dismiss(self, connection: asyncssh.SSHClientConnection) -> None:
        self._all.discard(connection)
        connection.close()
