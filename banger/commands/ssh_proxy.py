"""The ProxyCommand of ssh: it connects to a VM by name, records the host key, and passes the connection to ssh."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context

from banger.client import path_of
from banger.commands.openssh import check_host, with_host_key
from banger.commands.rewriting import locked, read_or_none, replace_file
from banger.commands.session import CliSession
from banger.commands.ssh_config import known_hosts_file
from banger.core.errors import BangerError, ErrorKind

_CONNECT_TIMEOUT_S = 15.0
_STDOUT = 1


def ssh_proxy(ctx: Context, host: Annotated[str, Argument(metavar="HOST", help="Name of a VM, and a suffix.")]) -> None:
    """Connect to a VM for ssh, as its ProxyCommand with ProxyUseFdpass."""
    session: CliSession = ctx.obj
    name = check_host(host).partition(".")[0]
    access = session.client.get(path_of("vms", name, "access"))
    _remember(known_hosts_file(session.layout), host, str(access["host_key"]))
    with _connect(name, access) as connection:
        _hand_over(connection)


def _remember(known_hosts: Path, host: str, key: str) -> None:
    """Write down the key that the daemon gave this very VM: ssh reads the file when it has the connection."""
    with locked(known_hosts.parent):
        before = (read_or_none(known_hosts) or b"").decode(errors="replace")
        after = with_host_key(before, host, key)
        if after != before:
            replace_file(known_hosts, after.encode())


def _connect(name: str, access: dict[str, Any]) -> socket.socket:
    try:
        connection = socket.create_connection((access["host"], access["port"]), _CONNECT_TIMEOUT_S)
    except OSError as error:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'VM "{name}" does not answer at {access["host"]} port {access["port"]}',
            subject=name,
            cause=error.strerror or str(error),
            hint=f"banger vm show {name}",
        ) from error
    connection.settimeout(None)
    return connection


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
