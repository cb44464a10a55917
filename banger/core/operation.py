"""Operations: one piece of work, its steps and progress, and everybody who waits for it.

An :class:`Operation` is the work; a :class:`~banger.core.waiter.Waiter` is one caller's interest in it. Callers
create the waiter first and hand it to the supervisor, which attaches it to a new operation or to one in flight that
serves the same request. A waiter that leaves detaches only itself; the last one leaving cancels the work.

Thread-safe. Subscribers are called in the thread that made the news and must neither block nor raise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from banger.core import clock
from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind, cancelled
from banger.core.names import new_id
from banger.core.progress import EventKind, OperationEvent, OperationState, StepTiming, Subscriber
from banger.core.waiter import Waiter

_MIRRORED = (EventKind.STEP_STARTED, EventKind.PROGRESS, EventKind.STEP_FINISHED, EventKind.NOTE)

#: Progress events closer together than this are dropped, except the last one of a step.
PROGRESS_INTERVAL_S = 0.1


class Step:
    """A running step; made by :meth:`Operation.step`."""

    def __init__(self, operation: Operation, index: int, name: str) -> None:
        self._operation = operation
        self._index = index
        self.name = name
        self._last_event = 0.0
        self.done = 0
        self.total: int | None = None
        self.unit = ""

    def update(self, done: int, total: int | None = None, unit: str = "bytes") -> None:
        """Report progress in absolute terms: ``done`` of ``total`` (``None``: unknown) ``unit``."""
        self.done, self.total, self.unit = done, total if total is not None else self.total, unit
        now = time.monotonic()
        if now - self._last_event < PROGRESS_INTERVAL_S:
            return
        self._last_event = now
        self._operation.publish(EventKind.PROGRESS, step=self.name, done=done, total=self.total, unit=unit)


class Operation:
    """One piece of work with a cancel token, a deadline, progress, step timings and an outcome.

    Attributes:
        token: set when the work is to be given up; checked between steps.
        haste: set then, too, and by :meth:`hurry`: what every wait for a machine or its guest waits on.
    """

    def __init__(self, kind: str, subject: str, operation_id: str = "") -> None:
        """Create a queued operation.

        Args:
            kind: what is done, as ``noun.verb``: ``image.pull``, ``vm.start``.
            subject: the name it is done to.
            operation_id: given only by tests.
        """
        self.id = operation_id or new_id()
        self.kind = kind
        self.subject = subject
        self.token = CancelToken()
        self.haste = CancelToken()
        self.token.on_cancel(lambda: self.haste.cancel(self.token.reason))
        self.created_at = clock.now()
        self.finished_at: datetime | None = None
        self.result: Any = None
        self.error: BangerError | None = None
        self._state = OperationState.QUEUED
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._started = time.monotonic()
        self._ended = 0.0
        self._steps: list[StepTiming] = []
        self._events: list[OperationEvent] = []
        self._waiters: list[Waiter] = []
        self._subscribers: list[Subscriber] = []
        self._orphaned = False
        self.publish(EventKind.QUEUED, message=f"{kind} {subject}")

    # -- what the worker calls -------------------------------------------------------------------------

    def begin(self) -> bool:
        """Move from queued to running; False if it was cancelled while it waited (then skip it)."""
        with self._lock:
            if self._state is not OperationState.QUEUED:
                return False
            self._state = OperationState.RUNNING
            self._started = time.monotonic()
        self.publish(EventKind.STARTED)
        return True

    @contextmanager
    def step(self, name: str, *, is_cleanup: bool = False) -> Iterator[Step]:
        """Time one step; checks the token and the deadline first, unless it cleans up, which is done in any case."""
        if not is_cleanup:
            self.token.raise_if_cancelled()
            self.deadline.raise_if_expired(f"waiting to {name}")
        started = time.monotonic()
        with self._lock:
            index = len(self._steps)
            self._steps.append(StepTiming(name, started - self._started))
        self.publish(EventKind.STEP_STARTED, step=name)
        step = Step(self, index, name)
        failed = True
        try:
            yield step
            failed = False
        finally:
            elapsed = time.monotonic() - started
            timing = StepTiming(name, started - self._started, elapsed, step.done, step.total, step.unit, failed=failed)
            with self._lock:
                self._steps[index] = timing
            self.publish(
                EventKind.STEP_FINISHED,
                step=name,
                done=step.done,
                total=step.total,
                unit=step.unit,
                elapsed_s=elapsed,
                message="failed" if failed else "",
            )

    def note(self, message: str) -> None:
        """Tell every waiter one line of text that is not a step (a fallback taken, a warning)."""
        self.publish(EventKind.NOTE, message=message)

    def mirror(self, event: OperationEvent) -> None:
        """Pass on another operation's news as our own: its steps become ours. Made for :meth:`subscribe`."""
        if event.kind is EventKind.STEP_FINISHED and event.elapsed_s is not None:
            elapsed = event.elapsed_s
            started = time.monotonic() - elapsed - self._started
            timing = StepTiming(
                event.step, started, elapsed, event.done, event.total, event.unit, failed=event.message == "failed"
            )
            with self._lock:
                self._steps.append(timing)
        if event.kind in _MIRRORED:
            self.publish(
                event.kind,
                step=event.step,
                done=event.done,
                total=event.total,
                unit=event.unit,
                elapsed_s=event.elapsed_s,
                message=event.message,
            )

    def succeed(self, result: Any) -> None:
        """End well. Ignored if the operation has already ended."""
        self._finish(OperationState.SUCCEEDED, result, None)

    def fail(self, error: BangerError) -> None:
        """End with ``error``; one of kind ``cancelled`` ends the operation as cancelled."""
        state = OperationState.CANCELLED if error.kind is ErrorKind.CANCELLED else OperationState.FAILED
        error.operation_id = error.operation_id or self.id
        self._finish(state, None, error)

    # -- what everybody may ask ------------------------------------------------------------------------

    @property
    def state(self) -> OperationState:
        """Where the operation stands now."""
        return self._state

    @property
    def finished(self) -> bool:
        """True once there is an outcome."""
        return self._done.is_set()

    @property
    def steps(self) -> Sequence[StepTiming]:
        """The steps so far, in the order they began."""
        with self._lock:
            return tuple(self._steps)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the work began (or was queued, if it has not), up to its end."""
        return (self._ended or time.monotonic()) - self._started

    @property
    def deadline(self) -> Deadline:
        """The latest deadline among those who listen: work goes on while anybody may still use it."""
        with self._lock:
            if not self._waiters:
                return Deadline.never()
            latest: Deadline | None = None
            for waiter in self._waiters:
                left = waiter.deadline.remaining_s
                if left is None:
                    return Deadline.never()
                if latest is None or left > (latest.remaining_s or 0.0):
                    latest = waiter.deadline
            return latest or Deadline.never()

    def cancel(self, reason: str = "cancelled") -> None:
        """Cancel for everybody. Queued: ended at once. Running: the token is set and the worker unwinds."""
        self.token.cancel(reason)
        with self._lock:
            queued = self._state is OperationState.QUEUED
        if queued:
            self.fail(cancelled(reason))

    def hurry(self, reason: str) -> None:
        """Somebody wants the end of what is waited for here: waits on :attr:`haste` end now, the work goes on."""
        self.haste.cancel(reason)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until there is an outcome; False on timeout. Waiters wait with :meth:`Waiter.wait`."""
        return self._done.wait(timeout_s)

    def publish(self, kind: EventKind, **facts: Any) -> None:
        """Tell every subscriber and waiter; keeps all but progress for those who come later."""
        event = OperationEvent(kind, self.id, clock.now(), **facts)
        with self._lock:
            if kind is not EventKind.PROGRESS:
                self._events.append(event)
            targets = list(self._subscribers)
        for target in targets:
            with suppress(Exception):
                target(event)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Hear everything so far, then everything new; returns the unsubscription."""
        with self._lock:
            for event in self._events:
                with suppress(Exception):
                    subscriber(event)
            self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            with self._lock, suppress(ValueError):
                self._subscribers.remove(subscriber)

        return unsubscribe

    # -- joining ---------------------------------------------------------------------------------------

    def join(self, waiter: Waiter) -> bool:
        """Attach a waiter; False if the work has ended or is being cancelled, so that it can't be shared."""
        with self._lock:
            if self._orphaned or self.token.cancelled or self._done.is_set():
                return False
            waiter.bind(self)  # before the operation can end: whoever is woken must find its outcome
            self._waiters.append(waiter)
        waiter.attached()
        return True

    def detach(self, waiter: Waiter) -> None:
        """Remove a waiter; if it was the last one the work is cancelled."""
        with self._lock:
            if waiter not in self._waiters:
                return
            self._waiters.remove(waiter)
            # Decided under the lock: who comes from now on is told that this work cannot be shared any more.
            self._orphaned = not self._waiters and not self._done.is_set()
            orphaned = self._orphaned
        if orphaned:
            self.cancel("nobody waits for it any more")

    def _finish(self, state: OperationState, result: Any, error: BangerError | None) -> None:
        with self._lock:
            if self._done.is_set():
                return
            self._state, self.result, self.error = state, result, error
            self.finished_at, self._ended = clock.now(), time.monotonic()
            self._done.set()
            waiters = list(self._waiters)
        self.publish(EventKind.FINISHED, elapsed_s=self.elapsed_s, message=str(error) if error else "")
        for waiter in waiters:
            waiter.finished()
