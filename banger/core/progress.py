"""What operations report while they run: states, step timings and events. Plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class OperationState(StrEnum):
    """Where an operation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StepTiming:
    """One finished (or still running) step: what ``vm show`` draws the waterfall from.

    ``started_s`` counts from the start of the operation; ``duration_s`` is ``None`` while the step runs.
    """

    name: str
    started_s: float
    duration_s: float | None = None
    done: int = 0
    total: int | None = None
    unit: str = ""
    failed: bool = False


class EventKind(StrEnum):
    """What an event tells."""

    QUEUED = "queued"
    STARTED = "started"
    STEP_STARTED = "step_started"
    PROGRESS = "progress"
    STEP_FINISHED = "step_finished"
    NOTE = "note"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class OperationEvent:
    """One line of an operation's stream. ``step`` and ``message`` are empty where they say nothing."""

    kind: EventKind
    operation_id: str
    at: datetime
    step: str = ""
    done: int = 0
    total: int | None = None
    unit: str = ""
    elapsed_s: float | None = None
    message: str = ""


Subscriber = Callable[[OperationEvent], None]
