"""Buffered output of a command, bounded by back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from banger.core.errors import BangerError
from banger.core.exec import Stream

#: The sender is stopped above the first and goes on at or below the second; both in bytes.
HIGH_WATER, LOW_WATER = 256 << 10, 64 << 10
#: The reader gets about this much at once, at most: chunks stay far below a frame's limit.
_READ_BYTES = 256 << 10


class OutputQueue:
    """Chunks of both streams in the order they came, for one reader.

    ``pause`` and ``resume`` stop and restart the sender, which holds back at most a window of bytes while it is
    stopped and puts all of that before ``resume`` returns. The queue never stops it in the middle of that: asyncssh
    opens the whole window again for the first chunk it hands over, however many it still holds, so a reader that is
    always a little late would let those pile up without end. As it is, no more than ``LOW_WATER`` and two windows
    (``HIGH_WATER`` and one, if that is more) are in memory.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause_sender = pause
        self._resume_sender = resume
        self._chunks: deque[tuple[Stream, bytes]] = deque()
        self._size = 0
        self._paused = False
        self._resuming = False
        self._discarding = False
        self._ended = False
        self._error: BangerError | None = None
        self._news = asyncio.Event()

    def put(self, stream: Stream, data: bytes) -> None:
        """Take a chunk in; never refuses, so the sender's own window bounds what comes after a pause."""
        if self._discarding:
            return
        self._chunks.append((stream, data))
        self._size += len(data)
        self._news.set()
        self._pause()

    def end(self, error: BangerError | None = None) -> None:
        """Nothing more will come: the reader gets what is left, then the end or ``error``. The first call counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._news.set()

    def discard(self) -> None:
        """Throw away what is here and what comes, so that a command that nobody reads can come to its end."""
        self._discarding = True
        self._chunks.clear()
        self._size = 0
        self._resume()

    async def get(self) -> tuple[Stream, bytes] | None:
        """The next bytes of one stream, neighbouring chunks joined; ``None`` at the end."""
        while not self._chunks:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._news.clear()
            await self._news.wait()
        stream, data = self._chunks.popleft()
        parts, size = [data], len(data)
        while self._chunks and self._chunks[0][0] is stream and size < _READ_BYTES:
            data = self._chunks.popleft()[1]
            parts.append(data)
            size += len(data)
        self._size -= size
        self._resume()
        return stream, b"".join(parts)

    def _pause(self) -> None:
        if self._size > HIGH_WATER and not (self._paused or self._resuming or self._ended):
            self._paused = True
            self._pause_sender()

    def _resume(self) -> None:
        # There is nothing to restart after the end, and asyncssh fails on a channel it has taken down.
        if self._size > LOW_WATER or not self._paused or self._ended:
            return
        self._paused, self._resuming = False, True
        try:
            self._resume_sender()
        finally:
            self._resuming = False
        self._pause()
