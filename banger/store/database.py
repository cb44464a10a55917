"""One SQLite database in WAL mode with full durability: a connection that writes, and one that reads.

A single writing connection, shared by all threads under a lock, keeps every write in one order; statements take
microseconds, a commit as long as the disk does. Readers do not wait for it: they have a connection of their own, which
sees what was committed last. Inside a transaction a thread reads what it has written itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2 as sqlite

from banger.core.errors import BangerError, ErrorKind
from banger.store.failures import PATIENCE_S, busy, is_locked, told
from banger.store.migrations import MIGRATIONS

#: Before 3.51.3 two connections that write and checkpoint at once can corrupt a WAL database.
SAFE_SQLITE = (3, 51, 3)

IntegrityError = sqlite.IntegrityError

#: How long a writer waits for its turn, in seconds. A turn is as long as a disk under load takes to sync, or to remove
#: what nobody holds (:meth:`banger.store.leases.LeaseTable.unless_held`).
_TURN_S = 60.0
#: How long another process's lock is waited for that somebody has waited for in vain, in seconds.
_BRIEF_S = 0.25


class Database:
    """Opens (and creates, and migrates) the database at ``path``.

    Every method raises what :mod:`banger.store.failures` makes of SQLite's errors.

    Attributes:
        schema_version: how many migrations it has seen.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.RLock()
        self._read_lock = threading.Lock()
        self._in_transaction: int | None = None
        self._patience_s = PATIENCE_S
        with told(path):
            self._writer = _connect(path, "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
            self.schema_version = self._migrate(path)
            self._reader = _connect(path, "query_only = ON")

    def _migrate(self, path: Path) -> int:
        seen = int(self._writer.execute("PRAGMA user_version").fetchone()[0])
        if seen > len(MIGRATIONS):
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f'the state directory "{path.parent}" belongs to a newer banger',
                subject=str(path.parent),
                cause=f"its schema is version {seen}, this banger knows {len(MIGRATIONS)}",
                hint="upgrade banger, or set BANGER_HOME to another directory",
            )
        for number, script in enumerate(MIGRATIONS[seen:], start=seen + 1):
            self._writer.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
        return len(MIGRATIONS)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """All rows of a SELECT, by the names of their columns."""
        names, rows = self._read(sql, parameters)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def select(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT that names its columns."""
        return self._read(sql, parameters)[1]

    def _read(self, sql: str, parameters: Sequence[Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
        if self._in_transaction == threading.get_ident():
            with told(self._path):
                return _rows_of(self._writer, sql, parameters)
        with self._read_lock, told(self._path):
            return _rows_of(self._reader, sql, parameters)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it changed. Durable on return, outside a transaction."""
        with self._turn(), self._locking():
            return int(self._writer.execute(sql, parameters).rowcount)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nests by joining the outer transaction."""
        with self._turn():
            if self._in_transaction is not None:
                yield
                return
            with self._locking():
                self._writer.execute("BEGIN IMMEDIATE")
            self._in_transaction = threading.get_ident()
            try:
                yield
                with told(self._path):
                    self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # SQLite rolls back by itself when the disk is full
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                self._in_transaction = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the one who writes. Raises ``unavailable`` if others hold everybody up."""
        if not self._write_lock.acquire(timeout=_TURN_S):
            raise busy(self._path, _TURN_S)
        try:
            yield
        finally:
            self._write_lock.release()

    @contextmanager
    def _locking(self) -> Iterator[None]:
        """In here another process's lock is waited for.

        Once somebody has waited in vain, nobody waits for long until it is gone: who undoes what was begun has a dozen
        things to write down, and would take a minute for it.
        """
        try:
            with told(self._path):
                yield
        except BangerError as error:
            if is_locked(error.__cause__):
                self._be_patient(_BRIEF_S)
            raise
        if self._patience_s != PATIENCE_S:
            self._be_patient(PATIENCE_S)

    def _be_patient(self, seconds: float) -> None:
        self._patience_s = seconds
        self._writer.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def close(self) -> None:
        """Close both connections, the writing one last, which takes the log in; idempotent."""
        with self._read_lock:
            self._reader.close()
        with self._write_lock:
            self._writer.close()


def _connect(path: Path, *pragmas: str) -> Any:
    connection = sqlite.connect(str(path), timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _rows_of(connection: Any, sql: str, parameters: Sequence[Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names of the columns, and the rows."""
    cursor = connection.execute(sql, parameters)
    return [column[0] for column in cursor.description], cursor.fetchall()
