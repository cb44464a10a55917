"""Copying between this host and guests, by the rules of :mod:`banger.client.places`.

What is reported as copied into a guest is on its disk. Symbolic links are copied as links; one that is named itself is
followed if its path ends in a slash, or when asked to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from posixpath import basename, dirname

from banger.client import Client, path_of
from banger.client.ceiling import MOST_BYTES
from banger.client.places import (
    CopySource,
    is_open_file,
    means_contents,
    means_directory,
    no_directory_in_guest,
    place_in_guest,
    place_on_host,
)
from banger.client.transfer import OnBytes, PathInfo, Transfer, guest_path, ignore_bytes, stat_path
from banger.core.errors import BangerError, ErrorKind


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How to copy.

    Attributes:
        follow_link: if the source itself is a symbolic link, copy what it leads to.
        archive: keep owners and groups by number; otherwise all is root's in a guest, and the caller's here.
        on_bytes: told how many bytes were moved so far.
        most_bytes: what may come out of a guest, as reading it would give it.
    """

    follow_link: bool = False
    archive: bool = False
    on_bytes: OnBytes = ignore_bytes
    most_bytes: int = MOST_BYTES


_PLAIN = CopyOptions()


def copy_in(client: Client, vm: str, source: str, target: str, options: CopyOptions = _PLAIN) -> None:
    """Copy a local file or directory into a guest, and return once it is on the guest's disk.

    Args:
        client: for the daemon.
        vm: name, id or prefix.
        source: local path.
        target: path in the guest, taken from its root.
        options: see there.

    Raises:
        BangerError: ``not_found`` for a missing source or directory, ``conflict`` for a directory onto a file and the
            like, and what :func:`banger.client.packing.pack` and the guest raise.
    """
    from banger.client.packing import pack  # noqa: PLC0415  # tarfile is not needed before

    path, kind = local_source(source, follow_link=options.follow_link)
    directory, top = _place(client, vm, kind, target)
    transfer = Transfer(client, vm, "put", {"directory": directory}, options.on_bytes)
    transfer.feed(lambda send: pack(path, top, send, keep_owner=options.archive))


def copy_out(client: Client, vm: str, source: str, target: str, options: CopyOptions = _PLAIN) -> list[str]:
    """Copy a file or directory out of a guest; arguments and errors mirror :func:`copy_in`.

    Returns:
        One line for each thing that was left out: what cannot be read as a file, or must not come to this host.
    """
    from banger.client.unpacking import unpack  # noqa: PLC0415  # tarfile is not needed before

    path, kind = guest_source(client, vm, source, follow_link=options.follow_link)
    directory, top = place_on_host(kind, target)
    transfer = Transfer(client, vm, "get", {"path": path}, options.on_bytes)
    pieces = transfer.pieces()
    try:
        left_out = unpack(
            lambda: next(pieces, b""), directory, top, keep_owner=options.archive, most_bytes=options.most_bytes
        )
        _drain(pieces)
    finally:
        transfer.close()
    return [*transfer.left_out, *left_out]


def copy_across(client: Client, source: tuple[str, str], target: tuple[str, str], options: CopyOptions) -> list[str]:
    """Copy from one guest into another (or the same), each a VM and a path; returns what :func:`copy_out` returns."""
    from banger.client.repacking import relay  # noqa: PLC0415  # tarfile is not needed before

    path, kind = guest_source(client, *source, follow_link=options.follow_link)
    directory, top = _place(client, target[0], kind, target[1])
    if kind.is_directory and _is_inside(directory, path) and _is_same(client, source[0], target[0]):
        message = f'"{target[1]}" lies in what is to be copied there'
        raise BangerError(ErrorKind.CONFLICT, message, subject=target[1])
    giving = Transfer(client, source[0], "get", {"path": path})
    pieces = giving.pieces()
    try:
        taking = Transfer(client, target[0], "put", {"directory": directory}, options.on_bytes)
        taking.feed(
            lambda send: relay(
                lambda: next(pieces, b""), send, top, keep_owner=options.archive, most_bytes=options.most_bytes
            )
        )
        _drain(pieces)
    finally:
        giving.close()
    return giving.left_out


def local_source(source: str, *, follow_link: bool) -> tuple[Path, CopySource]:
    """What is to be read here, and what it is. Raises ``not_found``, ``conflict`` and ``denied``."""
    path = Path(source)
    try:
        follow = follow_link or means_directory(source) or is_open_file(path)
        mode = (os.stat if follow else os.lstat)(source).st_mode  # a Path would lose the slash at the end
    except (FileNotFoundError, NotADirectoryError) as error:
        cause = "it is not a directory" if isinstance(error, NotADirectoryError) else ""
        raise BangerError(ErrorKind.NOT_FOUND, f'"{source}" does not exist', subject=source, cause=cause) from error
    except OSError as error:
        cause = error.strerror or str(error)
        raise BangerError(ErrorKind.DENIED, f'cannot read "{source}"', subject=source, cause=cause) from error
    if stat.S_ISSOCK(mode) or (follow and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))):
        hint = "banger vm exec VM -- sh -c 'cat >FILE' reads from a pipe"
        raise BangerError(ErrorKind.CONFLICT, f'"{source}" is not a file or directory', subject=source, hint=hint)
    named = path.resolve() if path.name in ("", "..") else path
    kind = CopySource(named.name, stat.S_ISDIR(mode), means_contents(source))
    return (path.resolve() if follow else path), kind


def guest_source(client: Client, vm: str, source: str, *, follow_link: bool) -> tuple[str, CopySource]:
    """The path to ask a guest for, and what it is. Raises ``not_found`` and ``conflict``."""
    found = stat_path(client, vm, source)
    follow = follow_link or means_directory(source)
    chosen = found.followed if follow else found
    if found.kind == "missing" and (follow or not found.is_link):
        raise BangerError(ErrorKind.NOT_FOUND, f'"{source}" does not exist in the guest', subject=source)
    if follow and found.is_link and chosen.kind == "other":
        raise BangerError(
            ErrorKind.CONFLICT, f'"{source}" in the guest does not lead to a file or directory', subject=source
        )
    is_directory = chosen.kind == "directory" and not chosen.is_link
    if means_directory(source) and not is_directory:
        raise BangerError(ErrorKind.CONFLICT, f'"{source}" in the guest is not a directory', subject=source)
    contents_only = means_contents(source)
    path = f"{chosen.path.rstrip('/')}/." if contents_only else chosen.path
    return path, CopySource(basename(found.path), is_directory, contents_only)


def directory_in_guest(client: Client, vm: str, path: str) -> str:
    """The directory that ``path`` is or leads to. Raises ``not_found`` and ``conflict``."""
    found = stat_path(client, vm, path).followed
    if found.kind == "missing":
        raise no_directory_in_guest(path)
    if found.kind != "directory":
        raise BangerError(ErrorKind.CONFLICT, f'"{path}" in the guest is not a directory', subject=path)
    return found.path


def _place(client: Client, vm: str, source: CopySource, target: str) -> tuple[str, str]:
    found: PathInfo = stat_path(client, vm, target)
    directory, top = place_in_guest(source, guest_path(target), found)
    if found.followed.kind == "missing":
        directory_in_guest(client, vm, dirname(found.followed.path))
    return directory, top


def _is_inside(directory: str, path: str) -> bool:
    return PurePosixPath(directory).is_relative_to(PurePosixPath(path))


def _is_same(client: Client, one: str, other: str) -> bool:
    """True if both mean the same VM."""
    return bool(client.get(path_of("vms", one))["id"] == client.get(path_of("vms", other))["id"])


def _drain(pieces: Iterator[bytes]) -> None:
    """Read what is behind the archive: padding, and how the guest's side has ended."""
    for _ in pieces:
        pass
