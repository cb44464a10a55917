"""Cancel tokens and deadlines: how every wait in banger can be abandoned.

A token is set from outside the mailbox of the actor that works for it, so that cancelling never queues
behind the very work it wants to end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from banger.core.errors import BangerError, ErrorKind, cancelled


class CancelToken:
    """A flag that is set once, with callbacks for what must be interrupted (sockets, child processes)."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next = 0
        self.reason = ""

    @property
    def cancelled(self) -> bool:
        """True once :meth:`cancel` has been called."""
        return self._event.is_set()

    def cancel(self, reason: str = "cancelled") -> None:
        """Set the flag and run every registered callback once, in this thread. Idempotent."""
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            with suppress(Exception):  # one broken interrupter must not save the others from running
                callback()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Run ``callback`` when the token is cancelled (now, if it already is); returns its unregistration."""
        with self._lock:
            if not self._event.is_set():
                key = self._next
                self._next += 1
                self._callbacks[key] = callback
                return lambda: self._forget(key)
        callback()
        return lambda: None

    def _forget(self, key: int) -> None:
        with self._lock:
            self._callbacks.pop(key, None)

    def raise_if_cancelled(self) -> None:
        """Raise the ``cancelled`` error if the flag is set. Call it between chunks and between steps."""
        if self._event.is_set():
            raise cancelled(self.reason)

    def wait(self, timeout_s: float) -> bool:
        """Sleep up to ``timeout_s`` seconds, waking at once on cancel. True if cancelled."""
        return self._event.wait(timeout_s)


class Deadline:
    """An absolute point on the monotonic clock; made once at the edge and passed inwards, never extended."""

    __slots__ = ("_at",)

    def __init__(self, at: float | None) -> None:
        self._at = at

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """The deadline ``seconds`` from now; ``None`` means no deadline."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    @classmethod
    def never(cls) -> Deadline:
        """No deadline at all."""
        return cls(None)

    @property
    def remaining_s(self) -> float | None:
        """Seconds left, never negative; ``None`` for no deadline."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def expired(self) -> bool:
        """True once the point has passed."""
        return self._at is not None and time.monotonic() >= self._at

    def at_most(self, seconds: float) -> float:
        """Seconds left, capped: what to hand to a call that takes a plain timeout."""
        remaining = self.remaining_s
        return seconds if remaining is None else min(seconds, remaining)

    def raise_if_expired(self, doing: str) -> None:
        """Raise a ``timeout`` error naming what was being done."""
        if self.expired:
            raise BangerError(ErrorKind.TIMEOUT, f"timed out while {doing}")
