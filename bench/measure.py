"""Interleaved wall times: both sides of a comparison run in turn, so that a noisy machine is noisy to both."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Fewer runs than this are no measurement.
LEAST_ROUNDS = 5

#: One run of one side: does the work and returns its wall time in seconds, leaving out preparation and cleaning up.
Side = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of both sides, and what was promised.

    Attributes:
        limit: largest allowed ``ours / peer``; with ``limit_is_difference`` largest allowed ``ours - peer``; infinite
            for what is only reported.
    """

    name: str
    ours: float
    peer: float
    limit: float
    limit_is_difference: bool = False
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """``ours / peer``."""
        return self.ours / self.peer

    @property
    def bar(self) -> str:
        """The promise, readable."""
        if math.isinf(self.limit):
            return "reported"
        return f"ours - peer <= {self.limit:g} {self.unit}" if self.limit_is_difference else f"ratio <= {self.limit:g}"

    @property
    def met(self) -> bool:
        """True if the promise is kept."""
        return self._found <= self.limit

    @property
    def complaint(self) -> str:
        """Which bar is not met, by how much; for a row that is not."""
        how = f"{self._found:.3g} {self.unit}" if self.limit_is_difference else f"{self._found:.3g}"
        return f"not met: {self.name}: {self.bar}, it is {how}"

    @property
    def _found(self) -> float:
        return self.ours - self.peer if self.limit_is_difference else self.ratio

    def to_dict(self) -> dict[str, str | float]:
        """One entry of ``latest.json``."""
        return {
            "name": self.name,
            "ours": round(self.ours, 4),
            "peer": round(self.peer, 4),
            "ratio": round(self.ratio, 3),
            "bar": self.bar,
            "unit": self.unit,
        }


def interleaved(sides: Mapping[str, Side], rounds: int) -> dict[str, float]:
    """The median wall time of each side, in seconds. One round more is run first, to warm caches, and not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(max(rounds, LEAST_ROUNDS) + 1):
        for name, side in sides.items():
            elapsed = side()
            if number:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def timed(argv: Sequence[str | Path], env: Mapping[str, str] | None = None, *, expect: int = 0) -> float:
    """Wall time of one command, in seconds.

    Raises:
        RuntimeError: it did not end with the exit code ``expect``; holds what it printed.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in argv], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    elapsed = time.perf_counter() - started
    if done.returncode != expect:
        raise RuntimeError(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return elapsed


def plain_environment(**extra: str) -> dict[str, str]:
    """This environment, minus what changes how fast an interpreter starts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | extra


def table(comparisons: Sequence[Comparison]) -> str:
    """What ``make bench`` prints."""
    head = ("NAME", "OURS", "PEER", "RATIO", "BAR", "MET")
    rows = [
        (c.name, f"{c.ours:.3f} {c.unit}", f"{c.peer:.3f} {c.unit}", f"{c.ratio:.2f}", c.bar, "yes" if c.met else "NO")
        for c in comparisons
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(line.rstrip() for line in lines)
