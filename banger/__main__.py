"""The process: standard streams, the one place where errors end, the exit code."""

from __future__ import annotations

import sys
from pathlib import Path

from banger.commands.session import CliSession
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind
from banger.core.plain_text import printable_lines
from banger.render.streams import OUTPUT_FAILED, READER_LEFT, OutputError, discard_output, prepare_streams

_INTERRUPTED = EXIT_CODES[ErrorKind.CANCELLED]


def main() -> int:
    """Run the command line that the process was started with; the exit code."""
    prepare_streams()
    arguments = sys.argv[1:]
    session = CliSession()
    code = 0
    try:
        code = _run(arguments, session)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        return READER_LEFT
    except OutputError as error:
        discard_output()
        session.json = False  # its place is gone
        session.show_error(error)
        return code or OUTPUT_FAILED
    return code


def _run(arguments: list[str], session: CliSession) -> int:
    from banger import cli  # noqa: PLC0415  # inside the boundary: a broken installation is reported too

    try:
        return cli.run(arguments, session)
    except (BrokenPipeError, OutputError):
        raise
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except BangerError as error:
        return _report(error, arguments, session)
    except Exception as error:  # noqa: BLE001  # the boundary: nobody should have to read a traceback
        return _report(_unexpected(error), arguments, session)


def _report(error: BangerError, arguments: list[str], session: CliSession) -> int:
    before_command = arguments[: arguments.index("--")] if "--" in arguments else arguments
    session.json = session.json or "--json" in before_command  # the parser may have failed before it got there
    if session.debug or "--debug" in before_command:
        import traceback  # noqa: PLC0415  # only to debug

        sys.stderr.write(printable_lines("".join(traceback.format_exception(error))))
    session.show_error(error)
    return error.exit_code


def _unexpected(error: Exception) -> BangerError:
    """A bug of ours, or a file that could not be read and that nobody foresaw."""
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        message, hint = "the directory that this command was started in is gone", "cd / and use absolute paths"
        return BangerError(ErrorKind.NOT_FOUND, message, cause=error.strerror or "", hint=hint)
    wrapped = BangerError(
        ErrorKind.INTERNAL,
        "unexpected error in banger itself",
        cause=f"{type(error).__name__}: {error}",
        hint="run the command again with --debug and report what it prints",
    )
    wrapped.__cause__ = error
    return wrapped


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
