"""The offset of a guest's clock from the host's, measured in spite of the delay of each query. Pure.

A question that is sent at t0 and answered at t1 with the time g tells only that the guest's clock was between g - t1
and g - t0 ahead. Several questions together narrow that down; a clock that shows whole seconds widens it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SECONDS = re.compile(r"(\d{9,11})(?:\.(\d{1,9}))?\Z")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: sent and answered at these times of the host, with this text for an answer."""

    sent_s: float
    answered_s: float
    answer: str


@dataclass(frozen=True, slots=True)
class Offset:
    """The guest's clock is between ``least_s`` and ``most_s`` seconds ahead of the host's (negative: behind)."""

    least_s: float
    most_s: float

    def surely_within(self, limit_s: float) -> bool:
        """It cannot be further off than ``limit_s``."""
        return -limit_s <= self.least_s and self.most_s <= limit_s

    def surely_beyond(self, limit_s: float) -> bool:
        """It cannot be nearer than ``limit_s``."""
        return self.least_s > limit_s or self.most_s < -limit_s

    def __str__(self) -> str:
        middle, half = (self.least_s + self.most_s) / 2, (self.most_s - self.least_s) / 2
        return f"{abs(middle):.2f} s {'behind' if middle < 0 else 'ahead'} (± {half:.2f} s)"


def offset(samples: Sequence[Sample]) -> Offset:
    """What the samples tell together; if they contradict each other (a clock was set meanwhile), the last one counts.

    Raises:
        ValueError: an answer is no time, or there is none.
    """
    bounds = [_bounds(sample) for sample in samples]
    least, most = max(one.least_s for one in bounds), min(one.most_s for one in bounds)
    return Offset(least, most) if least <= most else bounds[-1]


def _bounds(sample: Sample) -> Offset:
    match = _SECONDS.match(sample.answer)
    if not match:
        raise ValueError(f'"{sample.answer[:40]}" is not a time')
    time_s = float(sample.answer)
    unit_s = 10.0 ** -len(match[2] or "")
    return Offset(time_s - sample.answered_s, time_s + unit_s - sample.sent_s)
