"""Waits that end at once when the operation is cancelled.

Looking up a host and connecting can't be interrupted from another thread, so such a call runs in a thread of its own,
which is left behind on cancel: it ends when its connection is cut, or by the call's own time-outs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from banger.core.cancel import CancelToken

T = TypeVar("T")


def abandonable(
    token: CancelToken,
    call: Callable[[], T],
    discard: Callable[[T], None],
    *,
    cut: Callable[[], None] = lambda: None,
    left_s: Callable[[], float | None] = lambda: None,
) -> T:
    """Return what ``call`` returns or raises, or raise ``cancelled`` as soon as ``token`` is set.

    Args:
        token: whose cancel ends the wait.
        call: the blocking call; it must have a time-out of its own.
        discard: gets the result of a call that came back after it had been given up.
        cut: ends a call that was given up, if that can be done.
        left_s: seconds until it is given up by itself, which may have become more meanwhile; ``None`` is never.

    Raises:
        TimeoutError: no time was left.
    """
    token.raise_if_cancelled()
    future: Future[T] = Future()
    wake = threading.Event()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # carried to the waiting thread, where it is raised
            future.set_exception(error)

    def discard_late(late: Future[T]) -> None:
        if late.exception() is None:
            discard(late.result())

    future.add_done_callback(lambda _: wake.set())
    forget = token.on_cancel(wake.set)
    threading.Thread(target=run, name="oci-call", daemon=True).start()
    try:
        while not wake.wait(left := left_s()) and (left is None or left_s()):
            pass
    finally:
        forget()
    if token.cancelled or not wake.is_set():
        future.add_done_callback(discard_late)
        cut()
        token.raise_if_cancelled()
        raise TimeoutError("no answer in time")
    return future.result()
