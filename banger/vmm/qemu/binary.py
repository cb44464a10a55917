"""Which QEMU is installed, and what it was built with."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.posix.programs import run_program
from banger.vmm.qemu import failures
from banger.vmm.qemu.arguments import SANDBOX, Binary

_NAME = "qemu-system-x86_64"
_TIMEOUT_S = 10.0


def find_binary() -> Binary:
    """The installed QEMU; ``unavailable`` with the command that installs it."""
    path = shutil.which(_NAME)
    if path is None:
        raise failures.cannot_execute(_NAME, FileNotFoundError(2, "No such file or directory"))
    stat = Path(path).stat()
    return _inspect(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _inspect(path: str, _mtime_ns: int, _size: int) -> Binary:
    """Ask the executable once for as long as it does not change on disk."""
    sandboxed = _version(path, "-sandbox", SANDBOX)
    version = sandboxed or _version(path)
    if not version:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'"{path}" does not work',
            subject=path,
            cause="it does not tell its version",
            hint=f"{path} -version",
        )
    firmware = tuple(line for line in _answer(path, "-L", "help").splitlines() if line.startswith("/"))
    return Binary(path, version, has_sandbox=bool(sandboxed), data_dirs=firmware)


def _version(path: str, *arguments: str) -> str:
    """First line of ``-version``; empty if QEMU refuses ``arguments``."""
    return _answer(path, *arguments, "-version").partition("\n")[0].strip()


def _answer(path: str, *arguments: str) -> str:
    """What it prints; empty if it refuses ``arguments``."""
    try:
        done = run_program([path, *arguments], timeout_s=_TIMEOUT_S)
    except OSError as error:
        raise failures.cannot_execute(path, error) from error
    except BangerError as error:
        if error.kind is ErrorKind.TIMEOUT:
            return ""
        raise
    return done.text if done.status == 0 else ""
