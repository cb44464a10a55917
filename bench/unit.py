"""The unit of work that bars are counted in, so that they mean the same on a slow machine: a bare interpreter's start.

It is what every command begins with, it takes processor, memory and page cache as our work does, and it is measured in
the same minute as what is compared with it. On the machine that the bars were set on it took 12 ms.
"""

from __future__ import annotations

import statistics
import sys

from bench.measure import plain_environment, timed

ROUNDS = 21


def bare_start() -> float:
    """Seconds that one takes."""
    return timed([sys.executable, "-c", "pass"], plain_environment())


def measured() -> float:
    """The median of several, in seconds."""
    return statistics.median(bare_start() for _ in range(ROUNDS))
