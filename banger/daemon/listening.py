"""The socket of the daemon, which a logout may remove with ``/run/user/UID``, or whoever cleans ``/tmp``."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from loguru import logger
from starlette.types import ASGIApp

from banger.api.server import Server, bind, make_server, wait_started
from banger.core.errors import BangerError
from banger.layout import Layout

_END_TIMEOUT_S = 10.0


class Listening:
    """Serves an application at an installation's socket. All of it in the event loop."""

    def __init__(self, app: ASGIApp, layout: Layout) -> None:
        """Nothing listens yet."""
        self._app = app
        self._layout = layout
        self._servers: list[tuple[Server, asyncio.Task[None]]] = []
        self._inode = 0

    async def begin(self) -> None:
        """Listen, in directories that are there; again if that was done before: who is connected stays so."""
        listener = bind(self._layout.socket)
        self._inode = self._layout.socket.stat().st_ino
        server = make_server(self._app)
        self._servers.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
        await wait_started(server)

    async def keep(self) -> None:
        """Look once whether callers can still find the socket, and listen anew if not, as soon as there is a place."""
        if self._is_there():
            return
        try:
            await asyncio.to_thread(self._layout.make_directories)
            await self.begin()
        except (OSError, BangerError) as error:  # nobody is logged in, say
            logger.debug("{} is gone, and cannot be made anew yet: {}", self._layout.socket, error)
            return
        logger.warning("{} was removed, and is there again", self._layout.socket)

    def tell_end(self) -> None:
        """Accept nobody any more."""
        for server, _ in self._servers:
            server.should_exit = True

    async def end(self) -> None:
        """Wait until those who are connected are done, but not for long, and remove the socket."""
        for _, serving in self._servers:
            with suppress(Exception):
                await asyncio.wait_for(serving, _END_TIMEOUT_S)

    def _is_there(self) -> bool:
        try:
            return self._layout.socket.stat().st_ino == self._inode
        except OSError:
            return False
