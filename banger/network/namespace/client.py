"""The daemon's end of its worker in the namespaces."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import banger
from banger.core.errors import BangerError, ErrorKind
from banger.launch.environment import vmm_environment
from banger.network.namespace.worker import A_SOCKET
from banger.posix.programs import search_path

_START = "import sys; sys.path.insert(0, sys.argv[1]); from banger.network.namespace.worker import main; main()"
#: The longest that one call may take: a program that it runs is given up earlier.
_TIMEOUT_S = 60.0


class Worker:
    """A worker, started by the command that enters the namespaces. Thread-safe."""

    def __init__(self, entering: Sequence[str]) -> None:
        """Start it. Raises ``unavailable``."""
        self._lock = threading.Lock()
        try:
            self._channel, theirs = socket.socketpair()
        except OSError as error:
            raise _lost(error.strerror or str(error)) from error
        package = str(Path(banger.__file__).parent.parent)
        argv = [*entering, sys.executable, "-P", "-s", "-c", _START, package, str(theirs.fileno())]
        modules = os.pathsep.join(filter(None, sys.path))  # where this daemon has its libraries from
        try:
            with theirs:
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env={**vmm_environment(os.environ), "PATH": search_path(), "PYTHONPATH": modules},
                    start_new_session=True,
                    pass_fds=(theirs.fileno(),),
                )
        except OSError as error:
            self._channel.close()
            raise _lost(error.strerror or str(error)) from error
        self._connection: Connection[Any, Any] = Connection(os.dup(self._channel.fileno()))

    @property
    def is_alive(self) -> bool:
        """It can be asked."""
        return self._process.poll() is None

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Have a function called there. Raises what it raises, or ``unavailable`` if the worker is lost."""
        with self._lock:
            try:
                self._connection.send((function, args, kwargs))
                if not self._connection.poll(_TIMEOUT_S):
                    self._process.kill()
                    raise _lost(f"no answer within {_TIMEOUT_S:g} s")
                succeeded, result = self._connection.recv()
                if succeeded and result == A_SOCKET:
                    return self._received()
            except (EOFError, OSError) as error:
                raise _lost("it has ended") from error
        if succeeded:
            return result
        if isinstance(result, str):
            raise _lost(result)
        kind, message, words = result
        raise BangerError(kind, message, **words)

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._connection.close()
            self._channel.close()
            self._process.kill()  # it is not in the middle of anything: that would hold the lock
            self._process.wait()

    def _received(self) -> socket.socket:
        _, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
        if not descriptors:
            raise OSError("no descriptor")
        return socket.socket(fileno=descriptors[0])


def _lost(cause: str) -> BangerError:
    return BangerError(
        ErrorKind.UNAVAILABLE, "the network of VMs cannot be changed", cause=cause, hint="banger daemon logs"
    )
