"""What SQLite's errors mean for whoever runs banger, and what helps (https://sqlite.org/rescode.html)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from pysqlite3 import dbapi2 as sqlite

from banger.core.errors import BangerError, ErrorKind

#: What a few rows and the index of the write-ahead log take at most.
ROOM_BYTES = 1 << 20
#: How long a statement waits for a lock of another process, in seconds.
PATIENCE_S = 5.0


class _Code(IntEnum):
    """SQLite's primary result codes, as far as they can be met here."""

    PERM = 3
    BUSY = 5
    LOCKED = 6
    READONLY = 8
    IOERR = 10
    CORRUPT = 11
    FULL = 13
    CANTOPEN = 14
    NOTADB = 26


_BY_WORDS: Mapping[str, int] = {
    "database or disk is full": _Code.FULL,
    "disk I/O error": _Code.IOERR,
    "unable to open database file": _Code.CANTOPEN,
}
#: Faults of our own, or for the caller to understand.
_NOT_OURS = (sqlite.IntegrityError, sqlite.ProgrammingError, sqlite.InterfaceError)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Let what goes wrong with the store at ``path`` be raised as a :class:`BangerError`."""
    try:
        yield
    except _NOT_OURS:
        raise
    except sqlite.DatabaseError as error:
        raise meaning(error, path) from error


def meaning(error: Exception, path: Path) -> BangerError:
    """What a failure of SQLite means."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    match (code or _BY_WORDS.get(str(error), 0)) & 0xFF:
        case _Code.BUSY | _Code.LOCKED:
            return _locked(path, str(error))
        case _Code.PERM | _Code.READONLY:
            kind, what, hint = ErrorKind.DENIED, "cannot be written", f"ls -l {shlex.quote(str(path))}"
        case _Code.CORRUPT | _Code.NOTADB:
            kind, what = ErrorKind.UNAVAILABLE, "is damaged, or is not a database"
            hint = f"stop the daemon and put a backup of {path.name} back; see docs/operations.md"
        case _Code.FULL:
            return _no_room(error, path)
        case _Code.IOERR | _Code.CANTOPEN if _is_full(path):
            return _no_room(error, path)
        case _:
            kind, what, hint = ErrorKind.UNAVAILABLE, "cannot be used", f"ls -ld {shlex.quote(str(path.parent))}; dmesg"
    return BangerError(kind, f'the store "{path}" {what}', subject=str(path), cause=str(error), hint=hint)


def is_locked(error: BaseException | None) -> bool:
    """True if another process's lock was waited for in vain."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in (_Code.BUSY, _Code.LOCKED)


def _locked(path: Path, cause: str) -> BangerError:
    """Somebody else has had the store for too long."""
    return BangerError(
        ErrorKind.UNAVAILABLE,
        f'the store "{path}" is locked by another process',
        subject=str(path),
        cause=f"{cause}, for {PATIENCE_S:g} s and more",
        hint=f"fuser -v {shlex.quote(str(path))} names it; end it and try again",
    )


def busy(path: Path, seconds: float) -> BangerError:
    """Others of this daemon have been writing for too long."""
    return BangerError(
        ErrorKind.UNAVAILABLE,
        f'the store "{path}" is busy',
        subject=str(path),
        cause=f"what was to be written has waited for {seconds:g} s",
        hint="banger op list shows what is being done; the disk may be slow, see dmesg",
    )


def _no_room(error: Exception, path: Path) -> BangerError:
    return BangerError(
        ErrorKind.EXHAUSTED,
        f'not enough room in "{path.parent}" to write the store',
        subject=str(path.parent),
        cause=f"{error}; it needs {ROOM_BYTES} bytes",
        hint="banger system df",
    )


def _is_full(path: Path) -> bool:
    """True if lack of room explains it: without any for its index, the log reports an I/O error or nothing to open."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < ROOM_BYTES
