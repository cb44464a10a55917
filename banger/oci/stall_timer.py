"""Stall timers: a transfer without data is reported early, and given up after a total over all attempts.

Time-outs of single reads do not notice a connection that brings a byte now and then, and those of several attempts add
up. So there is one clock for a manifest, a blob or an upload, and what sets it back is data in an amount that deserves
the name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from banger.core.errors import BangerError
from banger.core.units import format_size

SETTING = "registry.stall_timeout_s"
DEFAULT_LIMIT_S = 60.0
#: Less than this within the limit is no progress: 270 bytes per second of the default.
_LEAST_BYTES = 16 << 10
#: Seconds of silence that are told first; then twice as many, and so on.
_NOTICE_S = 10.0
_SHORTEST_LIMIT_S, _LONGEST_LIMIT_S = 1.0, 86400.0
_REPEAT_S = 5.0


def sensible_limit_s(limit_s: float) -> float:
    """``limit_s`` within what time-outs of sockets and threads can be: any number may be written into a file."""
    return min(limit_s, _LONGEST_LIMIT_S) if limit_s >= _SHORTEST_LIMIT_S else _SHORTEST_LIMIT_S


def without_repeats(note: Callable[[str], None]) -> Callable[[str], None]:
    """``note``, but for what it was told just now: several transfers that stall together have the same to say."""
    lock = threading.Lock()
    told: dict[str, float] = {}

    def tell(message: str) -> None:
        with lock:
            now = time.monotonic()
            is_new = now - told.get(message, -_REPEAT_S) >= _REPEAT_S
            told[message] = now
        if is_new:
            note(message)

    return tell


class StallTimer:
    """The clock of one thing that is waited for. Thread-safe."""

    def __init__(self, who: str, limit_s: float, note: Callable[[str], None]) -> None:
        """Start the clock.

        Args:
            who: whom is waited for, as errors and notices call it.
            limit_s: seconds without data after which it is given up.
            note: told about long silence.
        """
        self.limit_s = sensible_limit_s(limit_s)
        self._who = who
        self._note = note
        self._since = time.monotonic()
        self._bytes = 0

    def received(self, count: int) -> None:
        """Some bytes came, or were taken by the other side."""
        self._bytes += count
        if self._bytes >= _LEAST_BYTES:
            self.alive()

    def alive(self) -> None:
        """The other side does something worthwhile: the clock begins anew."""
        self._since, self._bytes = time.monotonic(), 0

    def mark(self) -> tuple[float, int]:
        """Where the clock stands, for :meth:`restore`."""
        return self._since, self._bytes

    def restore(self, mark: tuple[float, int]) -> None:
        """Forget what came since ``mark`` was taken: it was nothing new."""
        self._since, self._bytes = mark

    def left_s(self) -> float:
        """Seconds until it is given up; 0 if that is now."""
        return max(0.0, self._since + self.limit_s - time.monotonic())

    def given_up(self, error: BangerError) -> BangerError:
        """What is told instead of ``error`` when the time is up."""
        amount = f"less than {format_size(_LEAST_BYTES)}" if self._bytes else "no data"
        return BangerError(
            error.kind,
            f"{self._who} stalls: {amount} in {self.limit_s:g} s",
            subject=error.subject,
            cause=error.message,
            hint=f"try again later; for a line that is only slow, raise {SETTING} in config.toml",
        )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the body runs, silence is told."""
        done = threading.Event()
        thread = threading.Thread(target=self._tell, args=(done,), name="oci-stall_timer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _tell(self, done: threading.Event) -> None:
        told_for, wait_s = self._since, _NOTICE_S
        while not done.wait(max(0.0, told_for + wait_s - time.monotonic())):
            if self._since != told_for:
                told_for, wait_s = self._since, _NOTICE_S
            else:
                amount = "hardly any" if self._bytes else "no"
                limit = f"; given up after {self.limit_s:g} s ({SETTING})"
                self._note(f"{amount} data from {self._who} for {wait_s:g} s{limit}")
                wait_s *= 2
