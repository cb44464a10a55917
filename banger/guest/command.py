"""The command lines that banger sends into a guest, as one string each. Pure.

dropbear hands the string unchanged to the login shell, ``bin/enter`` of the toolbox, which splits it again: what is
joined with :func:`shlex.join` here arrives there as the same list of arguments.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, check_exec

#: What dropbear takes in one request (``MAX_CMD_LEN`` of its ``sysoptions.h``). One byte more ends the connection.
MAX_REQUEST_BYTES = 9000
#: What Linux takes as one argument (``MAX_ARG_STRLEN`` is 128 KiB), less a little.
MAX_COMMAND_BYTES = 131_000

_TOOLBOX = "/run/banger"


def exec_command(request: ExecRequest, exec_id: str = "") -> str:
    """``banger-exec [-x ID] [-u USER] [-w DIR] [-e K=V]... -- ARGV...``; raises ``usage`` for what no guest can run.

    With an ID of its own, the command can be ended with all that it has started (see :func:`end_command`).
    """
    check_exec(request)
    words = ["banger-exec"]
    if exec_id:
        words += ["-x", exec_id]
    if request.user:
        words += ["-u", request.user]
    if request.workdir:
        words += ["-w", request.workdir]
    for assignment in request.env:
        words += ["-e", assignment]
    return _join([*words, "--", *request.argv])


def end_command(exec_id: str) -> str:
    """``banger-end ID``: kills what the exec with that ID has started, however it has detached itself."""
    return f"banger-end {exec_id}"


def tool_command(args: Sequence[str]) -> str:
    """``banger-tool APPLET ARGS...``: a program of the toolbox, as root, whatever the image holds."""
    if not args:
        raise BangerError(ErrorKind.USAGE, "no tool was named")
    return _join(["banger-tool", *args])


def fits_one_request(command: str) -> bool:
    """False for a command that has to be sent as a file (see :func:`upload_command`)."""
    return len(command.encode()) <= MAX_REQUEST_BYTES


def launcher_path(name: str) -> str:
    """Where a command too long for one request is put in the guest, in memory."""
    return f"{_TOOLBOX}/launch-{name}"


def launcher_script(command: str) -> bytes:
    """The file: removes itself and hands the command to the login shell, as dropbear would have."""
    return f'{_TOOLBOX}/bin/busybox rm -f "$0"\nexec "$SHELL" -c {shlex.quote(command)}\n'.encode()


def upload_command(path: str) -> str:
    """Writes standard input to ``path``, which only root may read: the command may hold secrets."""
    return tool_command(["sh", "-c", f'umask 077; exec {_TOOLBOX}/bin/busybox cat >"$0"', path])


def launch_command(path: str) -> str:
    """Runs what :func:`upload_command` wrote."""
    return tool_command(["sh", path])


def _join(words: Sequence[str]) -> str:
    command = shlex.join(words)
    size = len(command.encode())
    if size > MAX_COMMAND_BYTES:
        message = f"the command is too long: {size} bytes, and {MAX_COMMAND_BYTES} is the most"
        raise BangerError(ErrorKind.USAGE, message, hint="send it on standard input, or copy it with banger vm cp")
    return command
