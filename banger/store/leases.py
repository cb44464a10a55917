"""Leases: what running operations use, so that garbage collection skips it; they expire.

A key is ``blob:HEX``, ``staging:OPERATION`` or ``dir:ID``. Only one daemon opens a store at a time, and work does not
survive a daemon: leases that an earlier one left bind nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

from banger.core import clock
from banger.store.database import Database

#: How long a lease holds without a sign of life of its holder. Any progress of the work renews it.
LEASE_S = 3600.0


class LeaseTable:
    """Who works with what. Every method is one transaction; all threads may call it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, holder: str, keys: Iterable[str]) -> None:
        """Hold ``keys`` for ``holder`` (an operation's id) from now on; several may hold the same key."""
        until = _until(LEASE_S)
        with self._database.transaction():
            for key in keys:
                self._database.execute(
                    """INSERT INTO leases (holder, key, expires_at) VALUES (?, ?, ?)
                       ON CONFLICT (holder, key) DO UPDATE SET expires_at = excluded.expires_at""",
                    (holder, key, until),
                )

    def renew(self, holder: str) -> None:
        """Let everything that ``holder`` still holds expire later."""
        self._database.execute(
            "UPDATE leases SET expires_at = ? WHERE holder = ? AND expires_at > ?",
            (_until(LEASE_S), holder, _until(0)),
        )

    def drop(self, holder: str) -> None:
        """Let go of everything that ``holder`` holds; nothing is success."""
        self._database.execute("DELETE FROM leases WHERE holder = ?", (holder,))

    def clear(self) -> None:
        """Let go of everything: for the start of a daemon."""
        self._database.execute("DELETE FROM leases")

    def held(self) -> set[str]:
        """The keys that somebody holds."""
        rows = self._database.query("SELECT DISTINCT key FROM leases WHERE expires_at > ?", (_until(0),))
        return {row["key"] for row in rows}

    def unless_held(self, key: str, action: Callable[[], object]) -> bool:
        """Run ``action``, which takes ``key`` away, unless somebody holds it; True if it ran.

        Whoever takes the lease meanwhile waits, and finds it gone: there is no instant between the look and the deed.
        """
        with self._database.transaction():
            self._database.execute("DELETE FROM leases WHERE expires_at <= ?", (_until(0),))
            if key in self.held():
                return False
            action()
            return True


def directory_key(object_id: str) -> str:
    """The key of an object's directory: of one that is about to get its row, or that something is made from."""
    return f"dir:{object_id}"


def _until(seconds: float) -> str:
    return clock.rfc3339(clock.now() + timedelta(seconds=seconds))
