"""Running the host's network tools."""

from __future__ import annotations

from banger.core.errors import BangerError, ErrorKind
from banger.posix.programs import run_program

#: A ruleset of a thousand guests takes a second; a tool that hangs must not hold up the daemon.
TIMEOUT_S = 30.0


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
    try:
        done = run_program([name, *arguments], timeout_s=TIMEOUT_S, stdin=stdin.encode())
    except BangerError as error:
        if error.kind is ErrorKind.UNAVAILABLE:
            raise
        raise _failed(name, error.message) from error
    except OSError as error:
        raise _failed(name, str(error)) from error
    return done.status, done.text, done.errors.decode(errors="replace")


def _failed(name: str, cause: str) -> BangerError:
    return BangerError(ErrorKind.UNAVAILABLE, f"{name} failed", subject=name, cause=cause, hint="banger doctor")


def _first_lines(text: str) -> str:
    return " ".join(text.split("\n")[:2]).strip()
