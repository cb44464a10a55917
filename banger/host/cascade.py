"""The cleanup cascade: every step runs whatever fails, "already gone" is success, failures come back together."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence

from banger.core.errors import BangerError, ErrorKind
from banger.core.plan import CleanupStep

#: A device, a mount or an image may be held for a moment by udev or blkid: 50 tries, 100 ms apart.
BUSY_TRIES = 50
BUSY_INTERVAL_S = 0.1

_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENXIO})


def run_all(steps: Sequence[CleanupStep], sleep: Callable[[float], None] = time.sleep) -> None:
    """Run every step in order, retrying for a bounded time what is busy.

    Args:
        steps: what to take down, users of a thing before the thing.
        sleep: waits between two tries, in seconds.

    Raises:
        ExceptionGroup: with one ``BangerError`` a step that failed or was left alone, after all steps ran.
        KeyboardInterrupt, SystemExit: as it came, after all steps ran, with the failures as its cause.
    """
    failures: list[Exception] = []
    left: set[str] = set()
    interruption: BaseException | None = None
    for step in steps:
        try:
            _run(step, left, sleep)
        except BangerError as failure:
            left.add(step.subject)
            failures.append(failure)
        except (KeyboardInterrupt, SystemExit) as error:
            left.add(step.subject)
            interruption = interruption or error
    group = ExceptionGroup("cleanup is not complete", failures) if failures else None
    if interruption is not None:
        raise interruption from group
    if group is not None:
        raise group


def _run(step: CleanupStep, left: set[str], sleep: Callable[[float], None]) -> None:
    """Run one step; whatever fails becomes one ``BangerError`` that names the step."""
    blockers = [subject for subject in step.needs if subject in left]
    if blockers:
        raise BangerError(
            ErrorKind.CONFLICT,
            f'left "{step.subject}" alone',
            subject=step.subject,
            cause=f"still in the way: {', '.join(blockers)}",
            hint=step.what_next,
        )
    try:
        _run_while_busy(step.run, sleep)
    except Exception as error:  # the boundary: one failing step must not keep the others from running
        raise BangerError(
            error.kind if isinstance(error, BangerError) else ErrorKind.UNAVAILABLE,
            f'cannot clean up "{step.subject}"',
            subject=step.subject,
            cause=_words(error),
            hint=step.what_next,
        ) from error


def _run_while_busy(run: Callable[[], None], sleep: Callable[[float], None]) -> None:
    for left in reversed(range(BUSY_TRIES)):
        try:
            run()
        except OSError as error:
            if error.errno in _GONE:
                return
            if error.errno != errno.EBUSY or not left:
                raise
            sleep(BUSY_INTERVAL_S)
        else:
            return


def _words(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_words(inner) for inner in error.exceptions)
    return str(error) or type(error).__name__
