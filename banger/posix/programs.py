"""Running a helper program to its end: bounded in time, ended with whoever wants its answer no more."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind

#: Debian keeps programs for administrators out of an ordinary user's PATH, who may run many of them all the same.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
#: Debian's package of each program whose name is another.
_PACKAGES = {
    "nft": "nftables",
    "pasta": "passt",
    "tc": "iproute2",
    **dict.fromkeys(("debugfs", "e2fsck", "libext2fs.so.2", "mke2fs", "resize2fs", "tune2fs"), "e2fsprogs"),
}


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended. ``errors`` is empty if its standard error went to ``output``."""

    program: str
    status: int
    output: bytes
    errors: bytes

    @property
    def text(self) -> str:
        """Its standard output."""
        return self.output.decode(errors="replace")

    @property
    def words(self) -> str:
        """The end of what it wrote to standard error."""
        return self.errors.decode(errors="replace").strip()[-1000:]


class ProgramError(Exception):
    """A helper program ended with a status other than 0; ``words`` is the end of what it wrote to standard error."""

    def __init__(self, program: str, status: int, words: str) -> None:
        super().__init__(f"{program} ended with status {status}: {words}")
        self.status = status
        self.words = words


def search_path() -> str:
    """PATH with the directories of programs for administrators."""
    return f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"


def find_program(name: str) -> str | None:
    """The path of a program, also of one for administrators."""
    return shutil.which(name, path=search_path())


def require_program(name: str) -> str:
    """As :func:`find_program`. Raises ``unavailable``, with the package to install, if it is not there."""
    path = find_program(name)
    if path is None:
        raise not_installed(name)
    return path


def not_installed(name: str) -> BangerError:
    """The error for a program that this host lacks."""
    hint = f"apt-get install {_PACKAGES.get(name, name)}"
    return BangerError(ErrorKind.UNAVAILABLE, f'"{name}" is not installed', subject=name, hint=hint)


def run_program(
    argv: Sequence[str],
    *,
    token: CancelToken | None = None,
    timeout_s: float | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    merge_errors: bool = False,
) -> Finished:
    """Run a program to its end, in a session of its own.

    Args:
        argv: its name or path, then its arguments.
        token: when it is cancelled, the program and its children are killed.
        timeout_s: seconds after which they are as well.
        stdin: what it reads; nothing otherwise.
        environment: all that it gets besides the locale; by default this process's own. Messages are in English.
        cwd: its working directory.
        merge_errors: standard error goes where standard output goes.

    Raises:
        BangerError: ``unavailable`` if it is not installed, ``timeout``, or ``cancelled``.
        OSError: it cannot be started.
    """
    path = argv[0] if "/" in argv[0] else require_program(argv[0])
    try:
        child = subprocess.Popen(
            [path, *argv[1:]],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_errors else subprocess.PIPE,
            cwd=cwd,
            env={**(os.environ if environment is None else environment), "LC_ALL": "C"},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise not_installed(argv[0]) from error
    with child:
        forget = token.on_cancel(lambda: _kill(child)) if token is not None else lambda: None
        try:
            output, errors = child.communicate(stdin or None, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BangerError(ErrorKind.TIMEOUT, f'"{argv[0]}" took longer than {timeout_s:.0f} s') from error
        finally:
            forget()
            _kill(child)
    if token is not None:
        token.raise_if_cancelled()
    return Finished(argv[0], child.returncode, output, errors or b"")


def output_of(
    argv: Sequence[str],
    token: CancelToken | None = None,
    *,
    timeout_s: float | None = None,
    cwd: Path | None = None,
) -> bytes:
    """What a program that must succeed wrote to its standard output; it never asks anything.

    Raises:
        ProgramError: it failed.
        BangerError: as for :func:`run_program`.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = run_program(argv, token=token, timeout_s=timeout_s, cwd=cwd, environment=environment)
    if done.status:
        raise ProgramError(argv[0], done.status, done.words)
    return done.output


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a program that was not waited for yet, and its children. Afterwards its number may be another's."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
