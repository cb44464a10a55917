"""The VMs that are held by a session: they are deleted when it ends, however it ends. Thread-safe.

A session lives in the daemon that serves it, so this is kept in memory only: whoever is marked as attended in the store
and not here belonged to a session of a daemon that is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Attendance:
    """The VMs whose sessions this daemon serves, by id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, str] = {}

    @contextmanager
    def held(self, vm_id: str, name: str) -> Iterator[None]:
        """Hold a VM, from before it is made until it was deleted."""
        with self._lock:
            self._held[vm_id] = name
        try:
            yield
        finally:
            with self._lock:
                del self._held[vm_id]

    def holds(self, vm_id: str) -> bool:
        """True while its session lasts."""
        with self._lock:
            return vm_id in self._held

    def all(self) -> list[tuple[str, str]]:
        """Id and name of every VM that is held."""
        with self._lock:
            return list(self._held.items())
