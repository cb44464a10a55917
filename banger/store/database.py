"""One SQLite connection, shared by all threads under a lock, in WAL mode with full durability.

A single connection keeps every write in one order and avoids a connection per actor thread; statements take
microseconds and no caller holds a transaction while it works.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2 as sqlite

from banger.core.errors import BangerError, ErrorKind
from banger.store.migrations import MIGRATIONS

#: Before 3.51.3 two connections that write and checkpoint at once can corrupt a WAL database.
SAFE_SQLITE = (3, 51, 3)

IntegrityError = sqlite.IntegrityError

#: What a few rows and the index of the write-ahead log take at most.
ROOM_BYTES = 1 << 20


class Database:
    """Opens (and creates, and migrates) the database at ``path``."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._path = path
        try:
            self._connection = sqlite.connect(str(path), isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate(path)
        except sqlite.DatabaseError as error:
            raise BangerError(
                ErrorKind.UNAVAILABLE, f'cannot open the store "{path}"', subject=str(path), cause=str(error)
            ) from error

    def _migrate(self, path: Path) -> None:
        seen = self.schema_version
        if seen > len(MIGRATIONS):
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f'the state directory "{path.parent}" belongs to a newer banger',
                subject=str(path.parent),
                cause=f"its schema is version {seen}, this banger knows {len(MIGRATIONS)}",
                hint="upgrade banger, or set BANGER_HOME to another directory",
            )
        for number, script in enumerate(MIGRATIONS[seen:], start=seen + 1):
            self._connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")

    @property
    def schema_version(self) -> int:
        """How many migrations the database has seen."""
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """All rows of a SELECT."""
        with self._lock:
            return [dict(row) for row in self._connection.execute(sql, parameters)]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it changed. Durable on return, outside a transaction."""
        with self._lock, self._room():
            return int(self._connection.execute(sql, parameters).rowcount)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nests by joining the outer transaction."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                with self._room():
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back by itself when the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Say what a full disk means."""
        try:
            yield
        except sqlite.OperationalError as error:
            if not _is_no_room(error):
                raise
            raise BangerError(
                ErrorKind.EXHAUSTED,
                f'not enough room in "{self._path.parent}" to write the store',
                subject=str(self._path.parent),
                cause=f"{error}; it needs {ROOM_BYTES} bytes",
                hint="banger system df",
            ) from error

    def close(self) -> None:
        """Close the connection; idempotent."""
        with self._lock:
            self._connection.close()


def _is_no_room(error: Exception) -> bool:
    """True for a full disk; without room for its index the write-ahead log reports an I/O error or nothing to open."""
    return str(error) in ("database or disk is full", "disk I/O error", "unable to open database file")
