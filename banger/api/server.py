"""uvicorn on the Unix socket, with the peer checked before the first byte is read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from banger.api.peer import admit

#: Callers that may wait to be accepted.
BACKLOG = 128


class PeerCheckedProtocol(H11Protocol):
    """Closes connections of other users at once; puts the peer's uid where ASGI has the client's port."""

    def connection_made(self, transport: Any) -> None:
        """Admit or close."""
        uid = admit(transport.get_extra_info("socket"))
        self._admitted = uid is not None
        if uid is None:
            transport.abort()
            return
        super().connection_made(transport)
        self.client = ("", uid)

    def data_received(self, data: bytes) -> None:
        """Read on for whoever was admitted."""
        if self._admitted:
            super().data_received(data)

    def eof_received(self) -> None:
        """The same for the end of it."""
        if self._admitted:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that never was one leaves nothing to clean up."""
        if self._admitted:
            super().connection_lost(exc)


def bind(path: Path) -> socket.socket:
    """A listening socket at ``path``, mode 0660, in a directory that is private already.

    The caller holds the state directory's lock, so whatever is at ``path`` was left behind by a dead daemon.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: the daemon has its own handlers."""
        yield


def make_server(app: ASGIApp) -> Server:
    """The server for ``app``; run it with ``await server.serve(sockets=[bind(path)])``."""
    config = uvicorn.Config(
        app,
        http=PeerCheckedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        backlog=BACKLOG,
        server_header=False,
        date_header=False,
    )
    return Server(config)


async def wait_started(server: Server) -> None:
    """Wait until the server accepts connections."""
    while not server.started and not server.should_exit:  # noqa: ASYNC110  # uvicorn has a flag for it, no event
        await asyncio.sleep(0.005)
