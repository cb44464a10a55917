"""Waiting for many sockets at once, in one thread: a callback for each, and timers."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT

#: Takes what the socket is ready for.
Callback = Callable[[int], None]


class Loop:
    """An epoll and the callbacks of what it watches. Errors and hang-ups count as being ready for everything."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._interests: dict[int, int] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopped = False

    def watch(self, descriptor: int, interest: int, callback: Callback) -> None:
        """Call back when the descriptor is ready for ``interest``; with none, only on errors."""
        if descriptor not in self._callbacks:
            self._epoll.register(descriptor, interest)
        elif self._interests[descriptor] != interest:
            self._epoll.modify(descriptor, interest)
        self._callbacks[descriptor], self._interests[descriptor] = callback, interest

    def forget(self, descriptor: int) -> None:
        """Watch it no more; to be called before it is closed."""
        if self._callbacks.pop(descriptor, None) is not None:
            del self._interests[descriptor]
            self._epoll.unregister(descriptor)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, so many seconds from now."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))

    def stop(self) -> None:
        """Return from :meth:`run`."""
        self._stopped = True

    def run(self) -> None:
        """Call back until stopped."""
        while not self._stopped:
            due_s = self._timers[0][0] - time.monotonic() if self._timers else -1.0
            for descriptor, events in self._epoll.poll(max(due_s, 0.0) if self._timers else -1):
                callback = self._callbacks.get(descriptor)
                if callback is not None:  # else it was forgotten by a callback of this very round
                    callback(events if events & ~(READ | WRITE) == 0 else events | READ | WRITE)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
