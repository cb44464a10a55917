"""The results of a check-up: rows with a verdict, by machine. Pure; the JSON of ``banger doctor --boot --json``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended. Only ``failed`` makes the command fail."""

    OK = "ok"
    NOTE = "note"
    SKIPPED = "skipped"
    FAILED = "failed"


class CheckFailedError(Exception):
    """What a check proves is not so.

    Attributes:
        detail: what was seen instead, in one line.
        cause: somebody else's words; may have several lines.
        hint: what to type next.
    """

    def __init__(self, detail: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.detail, self.cause, self.hint = detail, cause, hint


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw that did not fail. A ``note`` says that less than usual could be proven, and why."""

    detail: str
    note: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One check of one machine, or of the host.

    Attributes:
        elapsed_s: how long it took.
        cause: of a failure, in the words of whoever refused; may have several lines.
        hint: what to type; empty unless it failed.
    """

    check: str
    verdict: Verdict
    detail: str
    elapsed_s: float = 0.0
    cause: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class MachineReport:
    """A machine that was to be tried, and its rows; no rows for one that was not tried (``reason`` says why not)."""

    accelerator: str
    driver: str
    network: str
    usable: bool
    reason: str = ""
    hint: str = ""
    rows: tuple[Row, ...] = ()

    @property
    def title(self) -> str:
        """What tells it from the others."""
        return f"{self.accelerator} {self.driver} {self.network}"


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. ``ok``: everything that should work here works."""

    ok: bool
    image: str
    kernel: str
    machines: tuple[MachineReport, ...]
    host: tuple[Row, ...]
    elapsed_s: float


def is_ok(machines: Iterable[MachineReport], host: Iterable[Row]) -> bool:
    """True if something was tried and nothing failed."""
    tried = [machine for machine in machines if machine.usable]
    rows = [*(row for machine in tried for row in machine.rows), *host]
    return bool(tried) and not any(row.verdict is Verdict.FAILED for row in rows)
