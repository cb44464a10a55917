"""The daemon's way to a guest's ssh server, played: a frame stream whose bytes go to a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from banger.core.frames import FrameType
from tests.support.fake_api import FrameSession


def carried_to(host: str, port: int) -> Callable[[FrameSession], None]:
    """A conversation that carries bytes to a server and back, until it ends its side."""

    def talk(session: FrameSession) -> None:
        with socket.create_connection((host, port)) as server:
            session.started("web")
            feeding = threading.Thread(target=_feed, args=(session, server))
            feeding.start()
            with suppress(OSError):
                while data := server.recv(65536):
                    session.send(FrameType.STDOUT, data)
                session.exit(0)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            feeding.join()

    return talk


def _feed(session: FrameSession, server: socket.socket) -> None:
    try:
        with suppress(OSError, ValueError):  # the caller hung up
            while (frame := session.receive()) is not None and frame[0] is not FrameType.STDIN_EOF:
                if frame[0] is FrameType.STDIN:
                    server.sendall(frame[1])
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)
