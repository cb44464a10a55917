"""One caller's interest in an operation: wait for its outcome, receive its events, or leave at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind, cancelled
from banger.core.progress import Subscriber

if TYPE_CHECKING:
    from banger.core.operation import Operation


@dataclass(eq=False)
class Waiter:
    """One caller's interest in an operation. Created by the caller, attached by the supervisor."""

    deadline: Deadline = field(default_factory=Deadline.never)

    def __post_init__(self) -> None:
        """Set up the private state."""
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._operation: Operation | None = None
        self._refusal: BangerError | None = None
        self._left = False
        self._subscribers: list[Subscriber] = []
        self._unsubscribes: list[Callable[[], None]] = []
        self._on_finished: list[Callable[[], object]] = []

    @property
    def operation(self) -> Operation | None:
        """The operation this waiter was attached to, once it was."""
        return self._operation

    @property
    def left(self) -> bool:
        """True after :meth:`leave`: the supervisor need not start anything for it."""
        return self._left

    @property
    def answered(self) -> bool:
        """True once :meth:`outcome` can tell."""
        return self._wake.is_set()

    def bind(self, operation: Operation) -> None:
        """Know the operation. Called by :meth:`Operation.join` under its lock, before the operation knows us."""
        with self._lock:
            self._operation = operation

    def attached(self) -> None:
        """Called by :meth:`Operation.join` once the operation knows us too."""
        with self._lock:
            operation = self._operation
            assert operation is not None
            subscribers, self._subscribers = self._subscribers, []
            left = self._left
        if left:
            operation.detach(self)
            return
        self._unsubscribes.extend(operation.subscribe(subscriber) for subscriber in subscribers)

    def refuse(self, error: BangerError) -> None:
        """Answer without any operation: the supervisor is shutting down, or the request is impossible."""
        with self._lock:
            self._refusal = error
        self.finished()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Hear the operation's events, also when it is attached later."""
        with self._lock:
            operation = self._operation
            if operation is None:
                self._subscribers.append(subscriber)
                return
        self._unsubscribes.append(operation.subscribe(subscriber))

    def when_answered(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` once there is an outcome (now, if there already is one)."""
        with self._lock:
            if not self._wake.is_set():
                self._on_finished.append(callback)
                return
        callback()

    def finished(self) -> None:
        """Wake whoever waits. Called by the operation."""
        with self._lock:
            if self._wake.is_set():
                return
            self._wake.set()
            callbacks = list(self._on_finished)
        for callback in callbacks:
            with suppress(Exception):
                callback()

    def leave(self) -> None:
        """Lose interest: detach at once, wherever the work stands. Idempotent."""
        with self._lock:
            if self._left:
                return
            self._left = True
            operation = self._operation
        for unsubscribe in self._unsubscribes:
            unsubscribe()
        if operation is not None:
            operation.detach(self)
        self.finished()

    def outcome(self) -> Any:
        """The result, or the operation's error raised; only after :attr:`answered`."""
        if self._refusal is not None:
            raise self._refusal
        operation = self._operation
        if operation is None or not operation.finished:
            raise cancelled("the caller left")
        if operation.error is not None:
            raise operation.error
        return operation.result

    def wait(self, token: CancelToken | None = None) -> Any:
        """Block for the result.

        Args:
            token: the waiter's own cancel token; when it is set, the wait is left at once.

        Raises:
            BangerError: the operation's own error; ``timeout`` when this waiter's deadline passed;
                ``cancelled`` when ``token`` was set.
        """
        forget = token.on_cancel(self.leave) if token is not None else lambda: None
        try:
            answered = self._wake.wait(self.deadline.remaining_s)
        finally:
            forget()
        if not answered:
            self.leave()
            operation = self._operation
            what = f'{operation.kind} of "{operation.subject}"' if operation else "the request"
            raise BangerError(
                ErrorKind.TIMEOUT,
                f"timed out waiting for {what}",
                operation_id=operation.id if operation else "",
            )
        if token is not None:
            token.raise_if_cancelled()
        return self.outcome()
