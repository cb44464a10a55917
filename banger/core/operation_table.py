"""The operations of one daemon: running ones and the most recent that ended."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from banger.core import lookup
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation

#: How many finished operations are kept for ``op list`` and ``op show``, at least.
KEPT = 200
#: Looking for those to forget takes as long as there are operations, so it is done once in so many new ones.
_BETWEEN_LOOKS = 64


class OperationTable:
    """Thread-safe. Read by the API while owners work, so that progress never waits for a mailbox."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: dict[str, Operation] = {}
        self._until_look = _BETWEEN_LOOKS

    def open(self, kind: str, subject: str) -> Operation:
        """A new queued operation."""
        operation = Operation(kind, subject)
        with self._lock:
            self._operations[operation.id] = operation
            self._until_look -= 1
            if not self._until_look:
                self._forget_old()
        return operation

    def _forget_old(self) -> None:
        finished = [op for op in self._operations.values() if op.finished]
        for old in finished[: max(0, len(finished) - KEPT)]:
            del self._operations[old.id]
        self._until_look = max(_BETWEEN_LOOKS, len(self._operations) // 4)

    def all(self) -> Sequence[Operation]:
        """Every operation known, oldest first."""
        with self._lock:
            return tuple(self._operations.values())

    def active(self) -> Sequence[Operation]:
        """Those that have no outcome yet."""
        return [operation for operation in self.all() if not operation.finished]

    def find(self, query: str) -> Operation:
        """The operation with this id or unique prefix of one."""
        if not query:
            raise BangerError(ErrorKind.USAGE, "the operation id is empty", hint="banger op list")
        matches = [op for op in self.all() if op.id.startswith(query)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(op.id for op in matches)
            raise BangerError(
                ErrorKind.AMBIGUOUS, f'operation "{query}" is ambiguous', subject=query, cause=f"it could be {listed}"
            )
        raise lookup.not_found(query, "op", [])
