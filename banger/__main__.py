"""The process: standard streams, the one place where errors end, the exit code."""

from __future__ import annotations

import os
import sys

from banger.commands.session import Session
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind

_BROKEN_PIPE = 128 + 13
_INTERRUPTED = EXIT_CODES[ErrorKind.CANCELLED]


def main() -> int:
    """Run the command line that the process was started with; the exit code."""
    _fill_standard_descriptors()
    arguments = sys.argv[1:]
    session = Session()
    try:
        code = _run(arguments, session)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return _BROKEN_PIPE
    return code


def _run(arguments: list[str], session: Session) -> int:
    from banger import cli  # noqa: PLC0415  # inside the boundary: a broken installation is reported too

    try:
        return cli.run(arguments, session)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except BangerError as error:
        return _report(error, arguments, session)
    except Exception as error:  # noqa: BLE001  # the boundary: nobody should have to read a traceback
        return _report(_unexpected(error), arguments, session)


def _report(error: BangerError, arguments: list[str], session: Session) -> int:
    before_command = arguments[: arguments.index("--")] if "--" in arguments else arguments
    session.json = session.json or "--json" in before_command  # the parser may have failed before it got there
    if session.debug or "--debug" in before_command:
        import traceback  # noqa: PLC0415  # only to debug

        traceback.print_exception(error)
    session.show_error(error)
    return error.exit_code


def _unexpected(error: Exception) -> BangerError:
    """A bug of ours, or a file that could not be read and that nobody foresaw."""
    wrapped = BangerError(
        ErrorKind.INTERNAL,
        "something unexpected went wrong in banger itself",
        cause=f"{type(error).__name__}: {error}",
        hint="run the command again with --debug and report what it prints",
    )
    wrapped.__cause__ = error
    return wrapped


def _fill_standard_descriptors() -> None:
    """Open ``/dev/null`` where a standard stream was closed, lest a socket of ours take its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  # lives as long as the process
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _discard_stdout() -> None:
    """Whoever read our output is gone: let the interpreter's last flush go nowhere instead of complaining."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
