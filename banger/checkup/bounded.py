"""Work with a time limit, in a thread that is abandoned if it exceeds it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from banger.core.errors import BangerError, ErrorKind

#: How often the caller gets the chance to redraw a clock, and to hear of Ctrl-C, in seconds.
_TICK_S = 0.2

_T = TypeVar("_T")


def bounded(work: Callable[[], _T], bound_s: float, tick: Callable[[], None] = lambda: None) -> _T:
    """What ``work`` returns or raises.

    A thread that overstays is left to itself: what it waits for ends with its VM, and it keeps no process alive.

    Args:
        work: runs in a thread of its own.
        bound_s: how long it may take, in seconds.
        tick: called every now and then meanwhile, in the caller's thread.

    Raises:
        BangerError: ``timeout``.
    """
    results: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  # handed to the caller below
            failures.append(error)

    thread = threading.Thread(target=run, name="checkup", daemon=True)
    thread.start()
    for _ in range(max(1, round(bound_s / _TICK_S))):
        thread.join(_TICK_S)
        if not thread.is_alive():
            break
        tick()
    if failures:
        raise failures[0]
    if not results:
        raise BangerError(ErrorKind.TIMEOUT, f"no answer within {bound_s:g} s")
    return results[0]
