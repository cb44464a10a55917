"""The received but unread output of a stream, bounded by its credit. Pure."""

from __future__ import annotations

from array import array

from banger.core.exec import Stream

#: The reader gets about this much at once, at most: chunks stay far below the limit of what carries them on.
_READ_BYTES = 256 << 10
#: Runs that were read are thrown away when there are so many.
_READ_RUNS = 1024


class Backlog:
    """Bytes of both outputs, in the order they came.

    One buffer for all of them and a signed length for each run (negative: standard error), so that a guest that sends
    them byte by byte, in turn, does not make this many times larger than the credit it had.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._runs = array("i")
        self._first = 0

    def __len__(self) -> int:
        """Bytes."""
        return len(self._data)

    def put(self, data: bytes, *, is_error: bool) -> None:
        """Take bytes in."""
        if not data:
            return
        self._data += data
        length = -len(data) if is_error else len(data)
        if len(self._runs) > self._first and (self._runs[-1] < 0) == is_error:
            self._runs[-1] += length
        else:
            self._runs.append(length)

    def take(self) -> tuple[Stream, bytes]:
        """The oldest bytes of one output. There must be some."""
        run = self._runs[self._first]
        size = min(abs(run), _READ_BYTES)
        data = bytes(self._data[:size])
        del self._data[:size]
        if size == abs(run):
            self._first += 1
        else:
            self._runs[self._first] = run + size if run < 0 else run - size
        if self._first == len(self._runs) or self._first > _READ_RUNS:
            del self._runs[: self._first]
            self._first = 0
        return (Stream.STDERR if run < 0 else Stream.STDOUT), data

    def clear(self) -> None:
        """Throw everything away."""
        self._data.clear()
        del self._runs[:]
        self._first = 0
