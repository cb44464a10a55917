"""The ProxyCommand of ssh: it connects to a VM by name, records the host key, and passes the connection to ssh."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Annotated

from typer import Argument, Context

from banger.client import path_of
from banger.client.channel import ClientFrameChannel, exit_of
from banger.commands.openssh import check_host, with_host_key
from banger.commands.rewriting import locked, read_or_none, replace_file
from banger.commands.session import CliSession
from banger.commands.ssh_config import known_hosts_file
from banger.commands.ssh_relay import relay
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType

#: In which a guest starts its ssh server, if that does not run yet.
_CONNECT_TIMEOUT_S = 60.0
_STDOUT = 1


def ssh_proxy(ctx: Context, host: Annotated[str, Argument(metavar="HOST", help="Name of a VM, and a suffix.")]) -> None:
    """Connect to a VM for ssh, as its ProxyCommand with ProxyUseFdpass."""
    session: CliSession = ctx.obj
    name = check_host(host).partition(".")[0]
    access = session.client.get(path_of("vms", name, "access"))
    _remember(known_hosts_file(session.layout), host, str(access["host_key"]))
    channel = session.client.frames(path_of("vms", name, "ssh"), {})
    try:
        _wait_connected(channel, name)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                _hand_over(theirs)
            _carry_on(channel, ours)
    finally:
        channel.close()


def _remember(known_hosts: Path, host: str, key: str) -> None:
    """Write down the key that the daemon gave this very VM: ssh reads the file when it has the connection."""
    with locked(known_hosts.parent):
        before = (read_or_none(known_hosts) or b"").decode(errors="replace")
        after = with_host_key(before, host, key)
        if after != before:
            replace_file(known_hosts, after.encode())


def _wait_connected(channel: ClientFrameChannel, name: str) -> None:
    """Until the guest's server has the connection; raises what keeps it from that."""
    while (frame := channel.receive(_CONNECT_TIMEOUT_S)) is not None:
        if frame[0] is FrameType.STARTED and json.loads(frame[1]):
            return
        if frame[0] is FrameType.EXIT:
            exit_of(frame[1])
    message = f'VM "{name}" did not answer within {_CONNECT_TIMEOUT_S:g} s'
    raise BangerError(ErrorKind.TIMEOUT, message, subject=name, hint=f"banger vm show {name}")


def _hand_over(connection: socket.socket) -> None:
    """Pass the connection to who waits at the other end of standard output (ssh_config(5), ProxyUseFdpass)."""
    try:
        with socket.socket(fileno=os.dup(_STDOUT)) as waiting:
            socket.send_fds(waiting, [b"\0"], [connection.fileno()])
    except OSError as error:
        raise BangerError(
            ErrorKind.USAGE,
            "nobody takes the connection over",
            cause=error.strerror or str(error),
            hint="this is run by ssh: ProxyCommand with ProxyUseFdpass; see banger ssh-config",
        ) from error


def _carry_on(channel: ClientFrameChannel, ours: socket.socket) -> None:
    """Carry bytes in a process of its own: ssh waits for this one to end, and goes on then.

    That one lives as long as the connection: keys of the terminal are ssh's business, and so is its output.
    """
    if os.fork():
        return
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        relay(channel, ours)
        status = 0
    finally:
        os._exit(status)
