"""Signals of a process that represents a remote command: which are forwarded, and how they reach the event loop.

What the guest's ssh server can deliver is passed on (RFC 4254, section 6.10). Signals of job control are ours: the
process stops and goes on like any job of a shell. Everything else that would end us is a reason to leave in order.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Somebody wants it to end: the second one within a short time is for us.
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGQUIT})
PASSED_ON = ENDING | {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGABRT}
_JOB_CONTROL = frozenset({signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH})
#: Their default is the end of the process. Not among them: faults of our own (SIGSEGV and the like).
_DEADLY = frozenset(
    {signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT, signal.SIGXCPU, signal.SIGTRAP}
) | frozenset(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))


#: Ignored on purpose, by nohup(1) say. What a shell has its background jobs ignore is still meant, if it is sent.
_MAY_STAY_IGNORED = frozenset({signal.SIGHUP, signal.SIGTSTP})
#: SIGINT has Python's own handler, which does the same.
_UNWINDING = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


class Inbox:
    """Signals as bytes in a pipe, so that ``poll`` sees them."""

    def __enter__(self) -> Inbox:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._old_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        wanted = PASSED_ON | _JOB_CONTROL | _DEADLY
        ignored = {number for number in _MAY_STAY_IGNORED if signal.getsignal(number) is signal.SIG_IGN}
        self._old = {number: signal.signal(number, _note) for number in sorted(wanted - ignored)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._read_end)
        os.close(self._write_end)

    def fileno(self) -> int:
        """The pipe, for ``poll``."""
        return self._read_end

    def take(self) -> list[int]:
        """The signals since the last call, oldest first."""
        try:
            return list(os.read(self._read_end, 64))
        except BlockingIOError:
            return []


@contextmanager
def ending_in_order() -> Iterator[None]:
    """In here, a signal that asks for the end unwinds what is under way: connections, unfinished files, the progress.

    Raises:
        SystemExit: 128 + the signal.
    """
    ignored = {number for number in _UNWINDING if signal.getsignal(number) is signal.SIG_IGN}
    old = {number: signal.signal(number, _unwind) for number in _UNWINDING - ignored}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _unwind(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _note(_number: int, _frame: FrameType | None) -> None:
    """The pipe has it already."""


def stop_here() -> None:
    """Stop this process as SIGTSTP does by default; returns when somebody lets it go on."""
    ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, ours)
