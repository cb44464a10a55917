"""Changing small files of the user: atomically, and without losing concurrent changes."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only one who changes files of a directory through this module."""
    with _explained(directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_or_none(path: Path) -> bytes | None:
    """The content; None if there is no such file.

    Raises:
        BangerError: ``denied``.
    """
    with _explained(path, "read"):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` in the file's place in one step. Mode and owner stay (new: 0600), a symbolic link stays one.

    Raises:
        BangerError: ``denied``; nothing is left behind.
    """
    target = Path(os.path.realpath(path))
    with _explained(path):
        before = target.stat() if target.exists() else None
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if before is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
                    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(file.fileno(), before.st_uid, before.st_gid)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise


@contextmanager
def _explained(path: Path, verb: str = "change") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BangerError(
            ErrorKind.DENIED,
            f'cannot {verb} "{path}"',
            subject=str(path),
            cause=error.strerror or str(error),
            hint=f"ls -ld {path} {path.parent}",
        ) from error
