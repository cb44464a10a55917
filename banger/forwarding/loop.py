"""An event loop for many sockets in one thread: a callback for each, and timers."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT

#: Takes what the socket is ready for.
Callback = Callable[[int], None]


class _Watched:
    """A descriptor from when it is watched until it is forgotten."""

    def __init__(self, interest: int, callback: Callback) -> None:
        self.interest, self.callback = interest, callback


class Loop:
    """An epoll and the callbacks of what it watches. Errors and hang-ups count as being ready for everything."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopped = False

    def watch(self, descriptor: int, interest: int, callback: Callback) -> None:
        """Call back when the descriptor is ready for ``interest``; with none, only on errors."""
        watched = self._watched.get(descriptor)
        if watched is None:
            self._epoll.register(descriptor, interest)
            self._watched[descriptor] = _Watched(interest, callback)
            return
        if watched.interest != interest:
            self._epoll.modify(descriptor, interest)
        watched.interest, watched.callback = interest, callback

    def forget(self, descriptor: int) -> None:
        """Watch it no more; to be called before it is closed."""
        if self._watched.pop(descriptor, None) is not None:
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
            wait_s = max(due_s, 0.0) if self._timers else -1
            ready = [(self._watched.get(one), one, events) for one, events in self._epoll.poll(wait_s)]
            for watched, descriptor, events in ready:
                # A callback of this very round may have forgotten it, and a new connection may have its number by now.
                if watched is not None and self._watched.get(descriptor) is watched:
                    watched.callback(events if events & ~(READ | WRITE) == 0 else events | READ | WRITE)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
