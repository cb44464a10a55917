"""The peer of a Unix socket connection: checked by uid when the connection is accepted."""

from __future__ import annotations

import os
import socket
import struct

from loguru import logger
from starlette.requests import HTTPConnection

_CREDENTIALS = struct.Struct("iII")


def peer_credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid of the peer when it connected (``SO_PEERCRED``, unix(7))."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def is_allowed(uid: int) -> bool:
    """The daemon serves its own user and root, who could read everything anyway."""
    return uid in (0, os.getuid())


def admit(connection: socket.socket) -> int | None:
    """The peer's uid, or None if it is not allowed in (or cannot be told)."""
    if connection.family != socket.AF_UNIX:  # elsewhere nobody vouches for a uid
        logger.warning("a peer that did not come by the Unix socket was turned away")
        return None
    try:
        pid, uid, _ = peer_credentials(connection)
    except OSError as error:
        logger.warning("a peer without credentials was turned away: {}", error)
        return None
    if not is_allowed(uid):
        logger.warning("uid {} (pid {}) was turned away", uid, pid)
        return None
    return uid


def peer_uid(connection: HTTPConnection) -> int:
    """The uid of the caller, as the server noted it on accept."""
    return int(connection.scope["client"][1])
