"""Running the programs of e2fsprogs (and their like), which make file systems, check and resize them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind

INSTALL_HINT = "apt-get install e2fsprogs"
_OTHER_PACKAGES = {"dmsetup": "dmsetup"}
#: Debian keeps these programs out of an ordinary user's PATH, who may run them all the same.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def missing_tool(name: str) -> BangerError:
    """The error for a program that this host lacks."""
    hint = f"apt-get install {_OTHER_PACKAGES[name]}" if name in _OTHER_PACKAGES else INSTALL_HINT
    return BangerError(ErrorKind.UNAVAILABLE, f'"{name}" is not installed', subject=name, hint=hint)


def run_tool(
    name: str,
    arguments: Sequence[str],
    *,
    token: CancelToken | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    stdin: str = "",
) -> tuple[int, str]:
    """Run a program with ``stdin`` and a clean environment; killed when ``token`` is cancelled.

    Returns:
        Its exit code and everything it printed.

    Raises:
        BangerError: ``unavailable`` if it is not installed, ``cancelled``, or ``timeout`` after ``timeout_s``.
    """
    search = f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_SBIN}"
    program = shutil.which(name, path=search)
    if program is None:
        raise missing_tool(name)
    with subprocess.Popen(
        [program, *arguments],
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": search, "LC_ALL": "C", **(environment or {})},
    ) as process:
        forget = token.on_cancel(process.kill) if token is not None else lambda: None
        try:
            output, _ = process.communicate(stdin.encode() if stdin else None, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BangerError(ErrorKind.TIMEOUT, f'"{name}" took longer than {timeout_s:.0f} s') from error
        finally:
            process.kill()
            forget()
    if token is not None:
        token.raise_if_cancelled()
    return process.returncode, output.decode(errors="replace").strip()


def check_file_system(image: Path, token: CancelToken | None = None) -> None:
    """Let e2fsck read the whole file system, changing nothing.

    Raises:
        BangerError: ``internal`` with e2fsck's own words if it finds the least fault: that is a bug of the writer.
    """
    code, output = run_tool("e2fsck", ["-f", "-n", str(image)], token=token)
    if code != 0:
        raise BangerError(ErrorKind.INTERNAL, "the file system just written is not clean", cause=output[-4000:])
