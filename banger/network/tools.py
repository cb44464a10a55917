"""Running the host's network tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from banger.core.errors import BangerError, ErrorKind

#: A ruleset of a thousand guests takes a second; a tool that hangs must not hold up the daemon.
TIMEOUT_S = 30.0
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
PACKAGES = {"nft": "nftables", "tc": "iproute2"}


def find_tool(name: str) -> str | None:
    """The path of a program that may be in a directory for administrators only."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def run_tool(name: str, *arguments: str, stdin: str = "") -> str:
    """Run a program to its end; what it wrote to its standard output.

    Raises:
        BangerError: ``unavailable`` if it is not installed, fails, or takes too long, with its own words as the cause.
    """
    status, output, complaint = try_tool(name, *arguments, stdin=stdin)
    if status:
        raise _failed(name, _first_lines(complaint) or f"exit status {status}")
    return output


def try_tool(name: str, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """As :func:`run_tool`, but an exit status other than 0 is an answer: ``(status, output, complaint)``."""
    path = find_tool(name)
    if path is None:
        package = PACKAGES.get(name, name)
        raise BangerError(ErrorKind.UNAVAILABLE, f"{name} is not installed", hint=f"apt-get install {package}")
    command: Sequence[str] = (path, *arguments)
    try:
        # Messages are matched in one place, so they must not be translated.
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(name, str(error)) from error
    return done.returncode, done.stdout, done.stderr


def _failed(name: str, cause: str) -> BangerError:
    return BangerError(ErrorKind.UNAVAILABLE, f"{name} failed", subject=name, cause=cause, hint="banger doctor")


def _first_lines(text: str) -> str:
    return " ".join(text.split("\n")[:2]).strip()
