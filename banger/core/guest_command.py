"""The command line of a command that a guest starts by itself, as one string for ``bin/enter`` of the toolbox. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, check_exec

#: What Linux takes as one argument (``MAX_ARG_STRLEN`` is 128 KiB), less a little.
MAX_COMMAND_BYTES = 131_000


def exec_command(request: ExecRequest) -> str:
    """``banger-exec [-u USER] [-w DIR] [-e K=V]... -- ARGV...``; raises ``usage`` for what no guest can run."""
    check_exec(request)
    words = ["banger-exec"]
    if request.user:
        words += ["-u", request.user]
    if request.workdir:
        words += ["-w", request.workdir]
    for assignment in request.env:
        words += ["-e", assignment]
    return _join([*words, "--", *request.argv])


def environment_script(variables: Iterable[str]) -> bytes:
    """``NAME=VALUE`` each, as ``bin/enter`` reads them."""
    return "".join(f"set_env {shlex.quote(item)}\n" for item in variables).encode()


def _join(words: Sequence[str]) -> str:
    command = shlex.join(words)
    size = len(command.encode())
    if size > MAX_COMMAND_BYTES:
        message = f"the command is too long: {size} bytes, and {MAX_COMMAND_BYTES} is the most"
        raise BangerError(ErrorKind.USAGE, message, hint="send it on standard input, or copy it with banger vm cp")
    return command
