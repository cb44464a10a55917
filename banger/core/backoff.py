"""Backoff: when to restart after a crash, and when to give up. Pure; the caller supplies the time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with jitter; forgiven after a healthy spell; given up after too many crashes within one.

    Attributes:
        first_s: delay after the first crash; doubles up to ``most_s``.
        healthy_after_s: so many seconds without a crash make all former ones forgotten.
        intensity: crashes within one spell that are survived.
        jitter: returns a number in [0, 1); half of each delay is scaled by it.
    """

    first_s: float = 0.05
    most_s: float = 10.0
    healthy_after_s: float = 60.0
    intensity: int = 5
    jitter: Callable[[], float] = random.random

    def delay_s(self, crashes: int) -> float:
        """Seconds to wait after the n-th crash in a row (n counts from 1)."""
        full = min(self.most_s, self.first_s * 2.0 ** (crashes - 1))
        return full / 2 + full / 2 * self.jitter()

    def healthy(self, crashes: Sequence[float], now: float) -> bool:
        """True if the latest crash (monotonic seconds) is long enough ago, or there was none."""
        return not crashes or now - crashes[-1] >= self.healthy_after_s
