"""``banger vm ssh``: running the user's ssh, with the host key that banger knows in advance."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context

from banger.client import path_of
from banger.commands.openssh import proxy_command, quoted_path
from banger.commands.options import VmArgument
from banger.commands.session import CliSession
from banger.commands.trailing import TrailingCommand
from banger.core.errors import BangerError, ErrorKind


def ssh(
    ctx: Context,
    vm: VmArgument,
    command: Annotated[list[str] | None, Argument(metavar="[--] ARGS...", help="More arguments for ssh.")] = None,
) -> None:
    """Log in to a VM with your own ssh."""
    session: CliSession = ctx.obj
    access = session.client.get(path_of("vms", vm, "access"))
    options, remote = split_ssh_arguments(command or [])
    host = access["host_key_alias"]  # not its name, which may be that of another machine in the user's configuration
    argv = ["ssh", *ssh_options(access, proxy_of(vm)), *options, f"{access['user']}@{host}", *remote]
    try:
        os.execvp(argv[0], argv)  # noqa: S606  # the command becomes ssh, terminal and all
    except OSError as error:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            'cannot run "ssh"',
            subject="ssh",
            cause=error.strerror or str(error),
            hint="apt-get install openssh-client",
        ) from error


ssh.command_class = TrailingCommand  # type: ignore[attr-defined]  # read by banger.cli


def proxy_of(vm: str) -> str:
    """What ssh runs to have a connection to a VM."""
    from banger.client.autostart import banger_command, daemon_environment

    return f"{proxy_command(banger_command(), daemon_environment())} {shlex.quote(vm)}"


def ssh_options(access: Mapping[str, Any], proxy: str) -> list[str]:
    """The options that make ssh reach this guest, and accept no other in its place.

    Names of VMs are reused, so nothing that the user's configuration shares between connections to one (a control
    socket, a jump host, a known host) may apply.
    """
    options = {
        "ProxyCommand": proxy.replace("%", "%%"),
        "ProxyUseFdpass": "yes",
        "HostKeyAlias": access["host_key_alias"],
        "IdentityFile": quoted_path(Path(access["private_key_path"])),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": quoted_path(Path(access["known_hosts_path"])),
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "ControlPath": "none",
    }
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def split_ssh_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate ssh's own options (``-L 8080:localhost:80``) from the remote command, which ssh wants last."""
    valued = "BbcDEeFIiJLlmOoPpQRSWw"  # ssh(1): options that take a value
    i = 0
    while i < len(arguments) and arguments[i].startswith("-") and arguments[i] != "--":
        i += 2 if arguments[i][-1] in valued and len(arguments[i]) == 2 else 1
    return arguments[:i], arguments[i + 1 :] if arguments[i : i + 1] == ["--"] else arguments[i:]
