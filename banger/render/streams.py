"""The process's standard output and standard error, and handling of write errors.

What standard output cannot take is lost data: one line says so, and the exit code is :data:`OUTPUT_FAILED`. A reader
that left early (``| head -1``) has what it wanted: silence, and :data:`READER_LEFT`. What standard error cannot take
is given up: it never decides how a command ends.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

from banger.core.errors import BangerError, ErrorKind

#: ``EX_IOERR`` of sysexits.h: nothing says about what the command did, only that its output is incomplete.
OUTPUT_FAILED = 74
#: 128 + SIGPIPE, as a shell reports a tool whose reader left.
READER_LEFT = 128 + 13
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class OutputError(BangerError):
    """Standard output took no more, for another reason than that its reader left."""

    def __init__(self, error: OSError) -> None:
        kind = ErrorKind.EXHAUSTED if error.errno in _NO_ROOM else ErrorKind.UNAVAILABLE
        reason = (error.strerror or str(error)).lower()
        super().__init__(kind, f"cannot write to standard output: {reason}", subject="standard output")

    @property
    def exit_code(self) -> int:
        """Its own, whatever the kind."""
        return OUTPUT_FAILED


def write_output(descriptor: int, data: Any) -> int:
    """Write to standard output; how many bytes it took.

    Raises:
        BrokenPipeError: the reader left.
        BlockingIOError: it takes nothing now.
        OutputError: every other failure.
    """
    try:
        return os.write(descriptor, data)
    except (BrokenPipeError, BlockingIOError):
        raise
    except OSError as error:
        raise OutputError(error) from error


def check_reader() -> None:
    """Raise ``BrokenPipeError`` if standard output is a pipe whose reader left; who waits for news asks this."""
    poll = select.poll()
    poll.register(1, 0)  # errors are told unasked
    if any(state & select.POLLERR for _, state in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def prepare_streams() -> None:
    """Make :data:`sys.stdout` and :data:`sys.stderr` fail as this module says; call it before anything is written."""
    _fill_standard_descriptors()
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # lives as long as the process
    sys.stdout = _checked(sys.stdout, _Output(1))
    sys.stderr = _checked(sys.stderr, _Messages(2))


def discard_output() -> None:
    """Let what is still buffered for standard output go nowhere, so that the interpreter's last flush says nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _fill_standard_descriptors() -> None:
    """Open something where a standard stream was closed, lest a socket of ours take its number.

    Input is empty then. What would be read only is written in vain: the error is that of a closed descriptor.
    """
    for descriptor, mode in ((0, os.O_RDWR), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free number, which is this one


def _checked(stream: TextIO | None, raw: _Raw) -> TextIO:
    """A text stream on ``raw`` in place of ``stream``; one that is no descriptor's (a test's) is left alone."""
    if stream is None:
        return _text(raw, "utf-8", line_buffering=False)
    try:
        if stream.fileno() != raw.fileno():
            return stream
    except (OSError, ValueError):
        return stream
    stream.flush()
    return _text(raw, stream.encoding, line_buffering=bool(stream.line_buffering))


def _text(raw: _Raw, encoding: str, *, line_buffering: bool) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )


class _Raw(io.RawIOBase):
    """A descriptor for writing, whose failures the subclasses understand."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def wait(self) -> None:
        """Another process made the descriptor non-blocking for everybody: wait for room."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()


class _Output(_Raw):
    def write(self, data: Any) -> int:
        while True:
            try:
                return write_output(self._descriptor, data)
            except BlockingIOError:
                self.wait()


class _Messages(_Raw):
    def write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                self.wait()
            except OSError:
                return len(data)
