"""Building in staging, publishing and deleting atomically.

A reader sees a directory whole or not at all, also after a power cut: content is synced before the rename, and the
rename before anybody is told (rename(2) is atomic, but only fsync of the parent makes it last).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import new_id
from banger.layout import Layout
from banger.posix.files import sync_path


@contextmanager
def staging_dir(layout: Layout, prefix: str = "") -> Iterator[Path]:
    """A new private directory under ``layout.staging``; gone after the block unless it was published."""
    layout.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = layout.staging / f"{prefix}{new_id()}"
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        if path.exists():
            discard(path, layout)


def sync_tree(path: Path) -> None:
    """Flush every file and directory of a tree to the disk, children before their directory."""
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            file = Path(directory, name)
            if stat.S_ISREG(file.lstat().st_mode):
                sync_path(file)
        sync_path(Path(directory))


def publish(staged: Path, final: Path) -> None:
    """Sync ``staged`` and give it its final name, for good when this returns.

    Whoever owns the name ``final`` calls this, so nothing can appear there between the check and the rename.

    Raises:
        BangerError: ``already_exists`` if ``final`` is there, whatever it is; ``staged`` is untouched then.
    """
    if os.path.lexists(final):
        raise BangerError(
            ErrorKind.ALREADY_EXISTS,
            f'"{final}" already exists',
            subject=final.name,
            hint="banger system reconcile",
        )
    final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_tree(staged)
    crashpoint("publish:synced")
    staged.rename(final)
    sync_path(final.parent)
    sync_path(staged.parent)


def discard(path: Path, layout: Layout) -> None:
    """Delete a file or a tree so that a crash leaves either all of it or only trash; absent is success.

    Raises:
        OSError: the rest of it could not be removed. If ``path`` itself is free by then, :func:`sweep` finds the rest.
    """
    if not os.path.lexists(path):
        return
    try:
        doomed = take_away(path, layout)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        remove(path)  # on another file system, as sockets are: they do not outlive a reboot anyway
        return
    remove(doomed)


def take_away(path: Path, layout: Layout) -> Path:
    """The first half of :func:`discard`, in no time: what was at ``path`` is trash now, and returned to be removed."""
    layout.trash.mkdir(mode=0o700, parents=True, exist_ok=True)
    doomed = layout.trash / f"{path.name}.{new_id()}"
    path.rename(doomed)
    crashpoint("discard:renamed")
    sync_path(path.parent)
    return doomed


def sweep(layout: Layout, keep: Collection[Path] = ()) -> list[Path]:
    """Remove what earlier daemons left in staging and trash, except ``keep``; returns what was removed.

    Call it before anything is staged.

    Raises:
        ExceptionGroup: with one ``OSError`` an entry that could not be removed, after all were tried.
    """
    removed: list[Path] = []
    failures: list[Exception] = []
    for directory in (layout.staging, layout.trash):
        for entry in sorted(directory.iterdir()) if directory.is_dir() else ():
            if entry in keep:
                continue
            try:
                remove(entry)
            except OSError as error:
                failures.append(error)
            else:
                removed.append(entry)
    if failures:
        raise ExceptionGroup("leftovers could not be removed", failures)
    return removed


def remove(path: Path) -> None:
    """Remove a file or a tree that nobody can find any more; absent is success."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_open_up)
    else:
        path.unlink(missing_ok=True)


def _open_up(
    function: Callable[..., Any], name: str, failure: tuple[type[BaseException], BaseException, TracebackType]
) -> None:
    """Retry what a directory without write or search permission kept from going; absent is success."""
    error = failure[1]
    if isinstance(error, FileNotFoundError):
        return
    if not isinstance(error, PermissionError):
        raise error
    path = Path(name)
    for directory in (path.parent, path):
        if directory.is_dir() and not directory.is_symlink():
            directory.chmod(0o700)
    if function in (os.unlink, os.rmdir):
        function(name)
    else:
        shutil.rmtree(path)
