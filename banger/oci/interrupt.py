"""Waits that end at once when nobody wants the answer any more.

Looking up a host, connecting and waiting for the first byte can't be interrupted from another thread, so such a
call runs in a thread of its own, which is left behind on cancel; the call's own time-outs end it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from banger.core.cancel import CancelToken

T = TypeVar("T")


def abandonable(token: CancelToken, call: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Return what ``call`` returns or raises, or raise ``cancelled`` as soon as ``token`` is set.

    Args:
        token: whose cancel ends the wait.
        call: the blocking call; it must have a time-out of its own.
        discard: gets the result of a call that came back after it had been given up.
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
        wake.wait()
    finally:
        forget()
    if token.cancelled:
        future.add_done_callback(discard_late)
        token.raise_if_cancelled()
    return future.result()
