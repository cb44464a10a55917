"""Running a helper program to its end: its words come back, and cancelling the operation ends it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind


class ProgramError(Exception):
    """A helper program ended with a status other than 0; ``words`` is the end of what it wrote to standard error."""

    def __init__(self, program: str, status: int, words: str) -> None:
        super().__init__(f"{program} ended with status {status}: {words}")
        self.status = status
        self.words = words


def run(argv: Sequence[str], token: CancelToken, *, cwd: Path | None = None) -> bytes:
    """Run ``argv`` in a session of its own and return what it wrote to standard output.

    Args:
        argv: program and arguments; messages are asked for in English.
        token: when it is set, the program and its children are killed and ``cancelled`` is raised.
        cwd: working directory.

    Raises:
        ProgramError: it failed.
        BangerError: ``unavailable`` if there is no such program, ``cancelled``.
    """
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise BangerError(ErrorKind.UNAVAILABLE, f'there is no program "{argv[0]}"', subject=argv[0]) from error
    with child:
        forget = token.on_cancel(_killer(child))
        try:
            output, errors = child.communicate()
        finally:
            forget()
    token.raise_if_cancelled()
    if child.returncode != 0:
        raise ProgramError(argv[0], child.returncode, errors.decode(errors="replace").strip()[-1000:])
    return output


def _killer(child: subprocess.Popen[bytes]) -> Callable[[], None]:
    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    return kill
