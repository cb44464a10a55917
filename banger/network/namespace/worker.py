"""The process that does in the namespaces what the daemon asks: calls functions of this package, one after the other.

It is the daemon's own child and ends with it. What it is told and tells is pickled, so both ends must be of one banger
and of one user, as they are.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from multiprocessing.connection import Connection
from typing import Any

from banger.core.errors import BangerError

#: Pickled instead of a socket, which comes right after as a descriptor.
A_SOCKET = "a socket follows"


def main() -> None:
    """Serve until the daemon is gone. Arguments: the package's directory, and the descriptor of the connection."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's, whose daemon it is that ends
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[2]))
    connection = Connection(os.dup(channel.fileno()))
    while True:
        try:
            function, args, kwargs = connection.recv()
        except EOFError:
            return
        answer(connection, channel, function, args, kwargs)


def answer(connection: Connection[Any, Any], channel: socket.socket, function: Any, args: Any, kwargs: Any) -> None:
    """Call it; what it returns, or why it failed."""
    try:
        result = function(*args, **kwargs)
    except BangerError as error:
        words = {"subject": error.subject, "cause": error.cause, "hint": error.hint}
        connection.send((False, (error.kind, error.message, words)))
        return
    except Exception as error:  # noqa: BLE001  # the boundary of this process: whoever asked is told
        connection.send((False, repr(error)))
        return
    if not isinstance(result, socket.socket):
        connection.send((True, result))
        return
    with result:
        connection.send((True, A_SOCKET))
        socket.send_fds(channel, [b"."], [result.fileno()])


def make_socket(family: int, kind: int) -> socket.socket:
    """A socket of this namespace."""
    return socket.socket(family, kind)
