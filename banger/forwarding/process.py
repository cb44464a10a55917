"""The process that forwards one VM's published ports: started by a daemon, independent of it, ended with its VMM.

It is given open sockets, the way to the guest's agent, and a pipe. What an operator should know it says on standard
error, which is the VMM's log. Through the pipe it is told which process is the VMM, and lives as long as that; a
pipe that is closed without a word means that the start has failed, or that the daemon has died in the middle of it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from banger.agent.messages import Family, dial
from banger.forwarding.datagrams import Senders
from banger.forwarding.link import PortsLink
from banger.forwarding.loop import READ, Loop
from banger.forwarding.streams import Listeners

_MOST_DESCRIPTORS = 65536


def main() -> None:
    """Forward until the VMM is gone.

    Its arguments are the marker, the package's directory and the descriptors of its configuration and of the pipe.
    """
    config_fd, pipe_fd = int(sys.argv[3]), int(sys.argv[4])
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):  # a terminal's, whose daemon it is that ends
        signal.signal(number, signal.SIG_IGN)
    _raise_limit()
    with os.fdopen(config_fd, "rb") as file:
        file.seek(0)
        config = json.load(file)
    loop = Loop()
    tell = partial(_tell, config["log_prefix"])
    link = PortsLink(loop, config["path"], config["vsock_port"], config["patience_s"], tell)
    listeners, senders = Listeners(loop, link), Senders(loop, link)

    def serve() -> None:
        for port in config["ports"]:
            taken = socket.socket(fileno=port["fd"])
            is_tcp = taken.type == socket.SOCK_STREAM
            request = dial(Family.MACHINE, port=port["guest_port"], datagrams=not is_tcp)
            (listeners if is_tcp else senders).add(taken, request)

    waits = config["waits"]
    if not waits:
        serve()
    loop.watch(pipe_fd, READ, lambda _: _hear(loop, pipe_fd, serve if waits else None))
    loop.run()


def _tell(prefix: str, words: str) -> None:
    with suppress(OSError):  # a full disk
        os.write(2, f"{prefix}{words}\n".encode())


def _raise_limit() -> None:
    """A descriptor for every connection: the limit that programs start with is meant for ``select``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _hear(loop: Loop, pipe_fd: int, serve: Callable[[], None] | None) -> None:
    """The VMM's pid and start time, once; then live as long as it, and begin if that was waited for."""
    words = os.read(pipe_fd, 64).split()
    loop.forget(pipe_fd)
    os.close(pipe_fd)
    pidfd = _open(int(words[0]), int(words[1])) if len(words) == 2 else None
    if pidfd is None:
        loop.stop()
    else:
        loop.watch(pidfd, READ, lambda _: loop.stop())
        if serve is not None:
            serve()


def _open(pid: int, start_ticks: int) -> int | None:
    """A pidfd of this very process; None if it is gone. The pid was opened first: it cannot change hands after."""
    try:
        pidfd = os.pidfd_open(pid)
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # pathlib costs a megabyte
            text = file.read()
    except (ProcessLookupError, FileNotFoundError):
        return None
    return pidfd if int(text[text.rindex(")") + 1 :].split()[19]) == start_ticks else None
