"""The parameters and the result of a command in a guest, whatever the transport."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from signal import Signals

from banger.core.errors import BangerError, ErrorKind

#: Signals that a command can be sent: those of RFC 4254 section 6.10, and the two that POSIX leaves to programs.
SIGNALS = frozenset("ABRT ALRM FPE HUP ILL INT KILL PIPE QUIT SEGV TERM USR1 USR2".split())

#: What Linux takes as one argument or variable (``MAX_ARG_STRLEN``, execve(2)), without its zero byte.
MAX_WORD_BYTES = 131071
_ENV_KEY = re.compile(r"[^\s=]+\Z")
#: Rows or columns: ``struct winsize`` has 16 bits for each (ioctl_tty(2)).
_MOST_LINES = 65535
#: What terminfo(5) has names for, and empty.
_TERM = re.compile(r"[\x21-\x7e]{0,128}\Z")


class Stream(StrEnum):
    """Which output a chunk is from."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a command ended. ``signal`` is empty or a name such as ``INT``; then ``code`` is 128 + its number."""

    code: int
    signal: str = ""

    @classmethod
    def from_signal(cls, name: str) -> ExitStatus:
        """The status of a command that was killed by the signal with that name (without ``SIG``)."""
        number = Signals.__members__.get(f"SIG{name}")
        return cls(255 if number is None else 128 + number, name)


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal to run the command on; ``term`` is the value of ``TERM``.

    Raises:
        BangerError: ``usage`` for a size that no terminal has, or a name that is none.
    """

    rows: int
    columns: int
    term: str = "xterm"

    def __post_init__(self) -> None:
        """Check it."""
        check_terminal_size(self.rows, self.columns)
        if not _TERM.match(self.term):
            raise BangerError(ErrorKind.USAGE, f"{self.term[:80]!a} is not a terminal name", hint="xterm-256color")


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command of the user's for a guest.

    Attributes:
        argv: program and arguments; empty means the login shell of ``user``.
        env: ``KEY=VALUE`` each, on top of what the image sets.
        user: name or number, with ``:GROUP`` or without; empty means the image's own.
        workdir: absolute; empty means the image's own.
        tty: run it on a terminal; standard error then arrives as standard output.
        has_input: something may be written to its standard input; otherwise it is empty from the start.
    """

    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    tty: Terminal | None = None
    has_input: bool = True


def check_exec(request: ExecRequest) -> None:
    """Raise ``usage`` for a command that no guest can run, whatever is in it."""
    for assignment in request.env:
        key, separator, _ = assignment.partition("=")
        if not separator or not _ENV_KEY.match(key):
            message = f'"{key}" does not name an environment variable with a value'
            raise BangerError(ErrorKind.USAGE, message, subject=key, hint="write NAME=VALUE")
    for word in (*request.argv, *request.env, request.user, request.workdir):
        if "\0" in word:
            raise BangerError(ErrorKind.USAGE, "a command cannot hold a NUL character")
        try:
            size = len(word.encode())
        except UnicodeEncodeError as error:
            raise BangerError(ErrorKind.USAGE, "a command must be valid UTF-8", cause=str(error)) from error
        if size > MAX_WORD_BYTES:
            message = f"the command is too long: a word has {size} bytes, and {MAX_WORD_BYTES} is the most"
            raise BangerError(ErrorKind.USAGE, message, hint="send it on standard input, or copy it with banger vm cp")


def check_terminal_size(rows: int, columns: int) -> None:
    """Raise ``usage`` for a size that no terminal has."""
    if not (0 <= rows <= _MOST_LINES and 0 <= columns <= _MOST_LINES):
        message = "a terminal of that size is none"
        raise BangerError(ErrorKind.USAGE, message, hint=f"the most is {_MOST_LINES}")


def check_signal(name: str) -> str:
    """The name itself if a command can be sent that signal (written without ``SIG``); raises ``usage`` if not."""
    if name not in SIGNALS:
        hint = f"one of {' '.join(sorted(SIGNALS))}"
        raise BangerError(ErrorKind.USAGE, f'"{name}" is not a signal', subject=name, hint=hint)
    return name
