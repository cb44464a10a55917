"""Waiting on conditions. No test sleeps for a fixed time and hopes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Found = TypeVar("Found")

INTERVAL_S = 0.02


def eventually(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
    """Return the condition's first true value.

    Raises:
        AssertionError: it was not true within ``timeout_s``; the message holds its last value.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or condition}; last value {value!r}")
        time.sleep(INTERVAL_S)
    return value


def eventually_empty(look: Callable[[], Sequence[Found]], timeout_s: float) -> list[Found]:
    """What ``look`` still finds after ``timeout_s``; an empty list as soon as it finds nothing."""
    deadline = time.monotonic() + timeout_s
    while found := list(look()):
        if time.monotonic() >= deadline:
            return found
        time.sleep(INTERVAL_S)
    return []
