"""A limit of concurrent work, in total and per source, so that one guest cannot block all others."""

from __future__ import annotations

from collections import Counter


class ConcurrencyLimit:
    """Counts what is inside. For one thread."""

    def __init__(self, most: int, most_per_source: int) -> None:
        self._most = most
        self._most_per_source = most_per_source
        self._inside: Counter[str] = Counter()
        self._total = 0

    def enter(self, source: str) -> bool:
        """Let one more in; False if there is no room. Whoever got in leaves by :meth:`leave`."""
        if self._total >= self._most or self._inside[source] >= self._most_per_source:
            return False
        self._total += 1
        self._inside[source] += 1
        return True

    def leave(self, source: str) -> None:
        """Make room again."""
        self._total -= 1
        self._inside[source] -= 1
        if not self._inside[source]:
            del self._inside[source]
