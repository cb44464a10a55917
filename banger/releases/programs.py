"""The programs of a release, out of its archive or a directory of the user's; all that is in either is untrusted."""

from __future__ import annotations

import errno
import hashlib
import shlex
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB, format_size
from banger.kernels import local_files
from banger.oci.artifact_tree import unpack_tree
from banger.posix.elf import read_linkage
from banger.rootfs.ext4.skeleton import host_error
from banger.rootfs.limits import Limits

#: A release has some twenty files of 50 MiB, most of it symbols for debuggers.
ARCHIVE_LIMITS = Limits(
    entries=1000, file_bytes=512 * MIB, total_bytes=1024 * MIB, metadata_bytes=4 * MIB, path_bytes=1024
)
#: No release's archive is larger.
MOST_ARCHIVE_BYTES = 256 * MIB
#: A program is smaller by far.
_MOST_PROGRAM_BYTES = 128 * MIB
_UNPACKED = ".unpacked"
#: ``e_machine`` of programs for an architecture (System V ABI).
_MACHINES = {"x86_64": 62, "aarch64": 183}


def from_archive(archive: Path, target: Path, names: Sequence[str], architecture: str, token: CancelToken) -> None:
    """Put the programs ``names`` of an archive into ``target``.

    Raises:
        BangerError: ``invalid`` for a hostile or damaged archive, or one without them; ``exhausted`` for a full disk.
    """
    unpacked = target / _UNPACKED
    with _host_errors(target, archive.stat().st_size):
        unpacked.mkdir()
        try:
            with archive.open("rb", buffering=0) as file:
                unpack_tree(file, unpacked, token, limits=ARCHIVE_LIMITS)
            for name in names:
                find_program(unpacked, name, architecture).rename(target / name)
                (target / name).chmod(0o755)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)


def from_directory(directory: Path, target: Path, names: Sequence[str], architecture: str, token: CancelToken) -> None:
    """Copy the programs ``names`` of a directory into ``target``.

    Raises:
        BangerError: as :func:`from_archive`.
    """
    for name in names:
        try:
            source = find_program(directory, name, architecture)
        except OSError as error:  # it goes away meanwhile
            raise _unreadable(error, directory) from error
        copy_file(source, target / name, token, _MOST_PROGRAM_BYTES)
        (target / name).chmod(0o755)


def copy_file(source: Path, target: Path, token: CancelToken, most_bytes: int = MOST_ARCHIVE_BYTES) -> None:
    """Copy one of the user's files.

    Raises:
        BangerError: ``not_found`` or ``denied`` if it cannot be read, ``invalid`` if it is larger than any honest one,
            ``exhausted`` for a full disk.
    """
    try:
        _check_size(source, most_bytes)
        local_files.copy(source, target, token)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise host_error(error, target, source.stat().st_size) from error
        raise _unreadable(error, source) from error


def find_program(root: Path, name: str, architecture: str) -> Path:
    """The one regular file called ``NAME`` or ``NAME-vVERSION-ARCHITECTURE`` in a directory, or one level below it."""
    patterns = (name, f"{name}-v*-{architecture}")
    found = [path for pattern in patterns for path in (*root.glob(pattern), *root.glob(f"*/{pattern}"))]
    files = sorted(path for path in found if stat.S_ISREG(path.lstat().st_mode))
    if len(files) == 1:
        return files[0]
    cause = ", ".join(str(path.relative_to(root)) for path in files[:5]) or f"looked for {' and '.join(patterns)}"
    few = "more than one" if files else "no"
    raise BangerError(
        ErrorKind.INVALID, f'"{root.name}" has {few} {name}'.replace(_UNPACKED, "the archive"), cause=cause
    )


def check_program_file(path: Path, architecture: str) -> None:
    """Raise ``invalid`` for what is no static program for this architecture: in a jail, there is nothing but itself."""
    _check_size(path, _MOST_PROGRAM_BYTES)
    with path.open("rb") as file:
        try:
            linkage = read_linkage(file)
        except ValueError as error:
            raise _unfit(path, str(error)) from error
    if linkage.machine != _MACHINES.get(architecture):
        raise _unfit(path, f"it is not for {architecture}")
    if not linkage.is_static:
        raise _unfit(path, f"it needs {', '.join(filter(None, (linkage.interpreter, *linkage.needed)))}")


def sum_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_size(path: Path, most_bytes: int) -> None:
    if path.stat().st_size > most_bytes:
        raise BangerError(
            ErrorKind.INVALID,
            f'"{path}" is larger than {format_size(most_bytes)}, more than any of a release',
            subject=str(path),
        )


def _unreadable(error: OSError, path: Path) -> BangerError:
    place = str(error.filename or path)
    return BangerError(
        ErrorKind.NOT_FOUND if isinstance(error, FileNotFoundError) else ErrorKind.DENIED,
        f'cannot read "{place}"',
        subject=place,
        cause=error.strerror or str(error),
        hint=f"ls -l {shlex.quote(place)}",
    )


def _unfit(path: Path, cause: str) -> BangerError:
    message = f'"{path.name}" is not a static program that runs here'
    return BangerError(ErrorKind.INVALID, message, subject=path.name, cause=cause)


@contextmanager
def _host_errors(target: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise host_error(error, target, needed_bytes) from error
