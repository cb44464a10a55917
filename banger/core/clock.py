"""The only place that reads the wall clock, so that tests can freeze it (see docs on freezegun in CONTRIBUTING)."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The current time, aware, in UTC, in whole milliseconds: what is written down is read back equal."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def unix_ns() -> int:
    """The current time in nanoseconds since 1970, as exact as this host has it: what a guest's clock is set to."""
    return time.time_ns()


def rfc3339(moment: datetime) -> str:
    """``2026-11-23T16:05:02.123Z``: the one form of time in JSON and in the store; sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[: -len("+00:00")] + "Z"


def parse_rfc3339(text: str) -> datetime:
    """The inverse of :func:`rfc3339`; raises ``ValueError`` for anything else."""
    return datetime.fromisoformat(text).astimezone(UTC)
