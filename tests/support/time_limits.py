"""A pytest plugin: a test that hangs fails alone, with what every thread was doing, and the others still run.

It sets the timer in the place of pytest-timeout, which keeps the say in how long a test may take (``timeout`` in
``pyproject.toml``, ``@pytest.mark.timeout``). There are two lines:

1. A signal raises :class:`TimeIsUp` in the test, whose fixtures are then put away as after any failure.
2. If that does not end it (it waits where no signal is heard, or so do its fixtures), the process ends at once.
   Worker processes (``-n``) are replaced, and the test's failure comes with the same words.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Generator
from types import FrameType
from typing import IO, Any

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from tests.support.sessions import ROOT

#: Seconds between the first line and the second, and what putting a test's fixtures away may take.
UNWIND_S, TEARDOWN_S = 60.0, 180.0
#: In a worker's session directory: what its threads were doing when it ended itself.
LAST_WORDS = "last-words"
#: Of each thread: those of the test and what it calls; above them is pytest.
_FRAMES = 20
TITLE = "what every thread was doing when time was up"

_doing = pytest.StashKey[str]()
_last_words = pytest.StashKey[IO[str]]()


class TimeIsUp(BaseException):
    """A test is not done in time. No ``Exception``, which tests and their tools may take for one of the code's."""


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[_last_words] = (config.stash[ROOT].path / LAST_WORDS).open("w")


def pytest_unconfigure(config: pytest.Config) -> None:
    if words := config.stash.get(_last_words, None):
        words.close()


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Arm both lines, instead of what pytest-timeout does."""

    def time_is_up(_number: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        from pytest_timeout import is_debugging

        if not is_debugging():
            item.stash[_doing] = _threads(frame)
            raise TimeIsUp(f"not done within {settings.timeout:g} s")

    signal.signal(signal.SIGALRM, time_is_up)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    _end_process_after(settings.timeout + UNWIND_S, item)
    return True


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Disarm the first line; the second stays until the test's fixtures are put away."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fixtures have their own time, whatever the test has left of its."""
    _end_process_after(TEARDOWN_S, item)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """After it nothing is armed."""
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show the threads with the failure."""
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(TimeIsUp):
        report.sections.append((TITLE, item.stash.get(_doing, "")))
    return report


def _end_process_after(seconds: float, item: pytest.Item) -> None:
    # The other file is the real standard error, which is not captured.
    file = item.config.stash.get(_last_words, None) or item.config.stash[fault_handler_stderr_fd_key]
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)


def _threads(main_frame: FrameType | None) -> str:
    frames = sys._current_frames()
    parts = []
    for thread in threading.enumerate():
        frame = main_frame if thread is threading.main_thread() else frames.get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame, _FRAMES)) if frame else "  (it is just ending)\n"
        parts.append(f"thread {thread.name}{' (daemon)' if thread.daemon else ''}:\n{stack}")
    return "\n".join(parts)
