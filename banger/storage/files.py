"""Disks that are files, created atomically by renaming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Fill
from banger.posix.copying import copy_unsynced
from banger.posix.files import sync_path
from banger.rootfs.ext4.skeleton import host_error

#: Serials by which the guest's init finds its drives, whatever order the bus gives them.
ROOT_SERIAL = "root"
DATA_SERIAL = "data"
HOME_SERIAL = "home"


def make_whole(path: Path, make: Callable[[Path], None], needed_bytes: int = 0) -> None:
    """Have ``make`` write a file beside ``path``, sync it and give it its name. What is there already stays.

    Args:
        path: the file to make.
        make: writes the file that it is given the path of, which does not exist.
        needed_bytes: what to say was needed if the host's disk is full.

    Raises:
        BangerError: as ``make`` does; ``exhausted`` or ``denied`` for what the host refuses.
    """
    if path.exists():
        return
    new = unfinished(path)
    try:
        new.unlink(missing_ok=True)
        make(new)
        sync_path(new)
        new.rename(path)
        sync_path(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise host_error(error, path, needed_bytes) from error
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def freeze_file(path: Path, into: Path, token: CancelToken) -> None:
    """Copy a disk that nobody writes to now into the directory ``into``, under its name; it is not synced.

    Raises:
        BangerError: ``not_found``; ``exhausted`` or ``denied`` for what the host refuses; ``cancelled``.
    """
    frozen = into / require(path).name
    try:
        copy_unsynced(path, frozen, token)
        frozen.chmod(0o400)
    except OSError as error:
        raise host_error(error, frozen, fill_of(path).used_bytes) from error


def fork_file(generation: Path, path: Path, token: CancelToken) -> None:
    """Make the disk ``path`` from what :func:`freeze_file` put into ``generation``. What is there already stays.

    Raises:
        BangerError: as :func:`make_whole`; ``not_found`` if the generation is not whole; ``cancelled``.
    """
    frozen = generation / path.name
    if not frozen.exists():
        raise BangerError(
            ErrorKind.NOT_FOUND, f'there is no disk "{frozen}"', subject=str(frozen),
            hint="somebody removed it: delete the snapshot",
        )  # fmt: skip

    def make(new: Path) -> None:
        copy_unsynced(frozen, new, token)
        new.chmod(0o600)

    make_whole(path, make, needed_bytes=fill_of(frozen).used_bytes)


def unfinished(path: Path) -> Path:
    """Where ``path`` is made; a crash may leave it."""
    return path.with_name(f"{path.name}.new")


def remove_file(path: Path) -> None:
    """Delete a disk, and what a crash left of its making; already gone is success."""
    path.unlink(missing_ok=True)
    unfinished(path).unlink(missing_ok=True)


def require(path: Path) -> Path:
    """``path`` if it is there; raises ``not_found`` otherwise."""
    if path.exists():
        return path
    raise BangerError(
        ErrorKind.NOT_FOUND,
        f'there is no disk "{path}"',
        subject=str(path),
        hint="somebody removed it: delete the VM and create it again",
    )


def fill_of(path: Path) -> Fill:
    """How much of a sparse file is there; nothing of one that is not."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return Fill(0, 0)
    return Fill(facts.st_blocks * 512, facts.st_size)
