"""The target path of a copy: the rules of ``docker cp``.

A directory copied to a path that is not there becomes that path; copied to a directory it goes into it, and what it
holds does if its own path ends in ``/.``. A file takes the place of a file. Neither takes the place of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from posixpath import basename, dirname

from banger.client.transfer import PathInfo
from banger.core.errors import BangerError, ErrorKind

#: As many as Linux follows (path_resolution(7)).
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class CopySource:
    """What is copied.

    Attributes:
        name: what it is called in a directory that it goes into; empty for a root.
        is_directory: itself; a symbolic link that is copied as one is none.
        contents_only: what the directory holds goes into a directory, not the directory itself.
    """

    name: str
    is_directory: bool
    contents_only: bool = False


def means_contents(path: str) -> bool:
    """True for a path as typed that stands for what a directory holds."""
    return path == "." or path.endswith("/.")


def means_directory(path: str) -> bool:
    """True for a path as typed whose end says that it is a directory, so that a link at its end is followed."""
    return path.endswith("/") or means_contents(path)


def is_open_file(link: Path) -> bool:
    """True for a link to what a process has open (``/dev/stdin``, ``/dev/fd/63``): its text means nothing elsewhere."""
    for _ in range(_MOST_LINKS):
        if not link.is_symlink():
            return False
        directory = link.parent.resolve()
        if directory.name == "fd" and directory.is_relative_to("/proc"):
            return True
        link = directory / link.readlink()
    return False


def place_in_guest(source: CopySource, target: str, found: PathInfo) -> tuple[str, str]:
    """Where a copy goes in a guest.

    Args:
        source: what is copied.
        target: as typed.
        found: what ``target`` is there; a link is followed.

    Returns:
        The directory, and the topmost entry's name in it; empty if only what the source holds goes there.

    Raises:
        BangerError: ``conflict`` for a directory in place of something else or the reverse, ``not_found`` for a file
            in a directory that is missing.
    """
    there = found.followed
    if there.kind == "directory":
        return there.path, "" if source.contents_only else source.name
    wanted = _conflicting(source, target, there.kind)
    if wanted:
        raise BangerError(ErrorKind.CONFLICT, f'"{target}" in the guest is not a {wanted}', subject=target)
    if there.kind == "missing" and target.endswith("/") and not source.is_directory:
        raise no_directory_in_guest(target)
    return dirname(there.path), basename(there.path)


def no_directory_in_guest(path: str) -> BangerError:
    """The error for a directory that a copy needs."""
    return BangerError(ErrorKind.NOT_FOUND, f'the guest has no directory "{path}"', subject=path)


def place_on_host(source: CopySource, target: str) -> tuple[Path, str]:
    """The mirror of :func:`place_in_guest` on this host, where ``target`` is looked at."""
    path = Path(target)
    if path.is_symlink():
        if is_open_file(path):
            hint = "banger vm exec VM -- cat FILE writes to standard output"
            raise BangerError(ErrorKind.CONFLICT, f'"{target}" is an open file', subject=target, hint=hint)
        path = path.resolve()
    if path.is_dir():
        return path, "" if source.contents_only else source.name
    kind = "file" if path.is_file() else "other" if path.exists() else "missing"
    wanted = _conflicting(source, target, kind)
    if wanted:
        raise BangerError(ErrorKind.CONFLICT, f'"{target}" is not a {wanted}', subject=target)
    if not path.parent.is_dir() or (kind == "missing" and target.endswith("/") and not source.is_directory):
        missing = target if path.parent.is_dir() else str(path.parent)
        raise BangerError(ErrorKind.NOT_FOUND, f'there is no directory "{missing}"', subject=missing)
    return path.parent, path.name


def _conflicting(source: CopySource, target: str, kind: str) -> str:
    """What a target would have to be, if what it is cannot be replaced."""
    if kind == "file" and (source.is_directory or target.endswith("/")):
        return "directory"
    if kind == "other":
        return "directory" if source.is_directory else "regular file"
    return ""
