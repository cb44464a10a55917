"""Random numbers of guests, remembered for a while: kernels that are copies of each other must not make the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

#: As many are remembered: of some thousand starts.
MOST_READS = 1 << 15


class RandomReads:
    """Whose kernel has made which numbers. Thread-safe."""

    def __init__(self, most: int = MOST_READS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._owners: OrderedDict[str, str] = OrderedDict()

    def claim(self, name: str, reads: Iterable[str]) -> str:
        """Remember what the VM of that name has made; the name under which one of them was claimed before, or empty."""
        before = ""
        with self._lock:
            for read in reads:
                before = before or self._owners.get(read, "")
                self._owners.setdefault(read, name)
            while len(self._owners) > self._most:
                self._owners.popitem(last=False)
        return before
