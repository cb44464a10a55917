"""Which failures of a registry are retried, how often, and after what delay."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError
from banger.oci.stall_timer import DEFAULT_LIMIT_S, StallTimer

T = TypeVar("T")

#: A pause longer than this is worth a line to the user.
_NOTEWORTHY_S = 3.0


class TransientError(Exception):
    """A failure that may be gone in a moment.

    Attributes:
        final: the error for the user once all attempts are used up.
        asked_s: seconds that the registry asked to wait (``Retry-After``), or ``None``.
        answered: the other side said so itself, and is alive.
    """

    def __init__(self, final: BangerError, asked_s: float | None = None, *, answered: bool = False) -> None:
        super().__init__(str(final))
        self.final = final
        self.asked_s = asked_s
        self.answered = answered


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential pauses with jitter: about 0.3, 0.6, 1.2 and 2.4 seconds.

    ``longest_s`` caps what a registry may ask for: a ``Retry-After`` of an hour must not hang a pull for an hour.
    """

    attempts: int = 5
    first_s: float = 0.3
    longest_s: float = 20.0

    def pause_s(self, failures: int, asked_s: float | None) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (from 1)."""
        own = self.first_s * 2.0 ** (failures - 1) * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, not a secret
        return min(self.longest_s, max(own, asked_s or 0.0))


PATIENT = RetryPolicy()


class Retrier:
    """Counts failures in a row and sleeps between them; one per thing that is being fetched.

    Attributes:
        stall_timer: ends the attempts, too, whatever is left of their number.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        token: CancelToken,
        note: Callable[[str], None],
        stall_timer: StallTimer | None = None,
    ) -> None:
        self.stall_timer = stall_timer or StallTimer("the server", DEFAULT_LIMIT_S, note)
        self._policy = policy
        self._token = token
        self._note = note
        self._failures = 0

    def progressed(self) -> None:
        """Forget earlier failures: something worthwhile arrived."""
        self._failures = 0

    def failed(self, failure: TransientError) -> None:
        """Sleep before the next attempt; raises the final error if there is none left, or ``cancelled``."""
        self._token.raise_if_cancelled()
        if failure.answered:
            self.stall_timer.alive()
        self._failures += 1
        if not self.stall_timer.left_s():
            raise self.stall_timer.given_up(failure.final) from failure
        if self._failures >= self._policy.attempts:
            raise failure.final from failure
        pause_s = self._policy.pause_s(self._failures, failure.asked_s)
        if pause_s >= _NOTEWORTHY_S:
            self._note(f"{failure.final}; trying again in {pause_s:.0f} s")
        self._token.wait(pause_s)
        self._token.raise_if_cancelled()

    def run(self, action: Callable[[], T]) -> T:
        """Repeat ``action`` until it raises anything but :class:`TransientError`, or returns."""
        with self.stall_timer.waiting():
            while True:
                try:
                    return action()
                except TransientError as failure:
                    self.failed(failure)
