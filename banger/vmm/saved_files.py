"""The files of a saved machine while it is being saved: whole and on the disk afterwards, or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import DEVICES_FILE, MEMORY_FILE
from banger.core.units import MIB
from banger.posix.files import sync_path

_LOG_FILE = "condenser.log"


@dataclass(frozen=True, slots=True)
class SavedFiles:
    """Those in one directory, and the log of the process that helps."""

    directory: Path

    @property
    def memory(self) -> Path:
        """As long as the guest's memory."""
        return self.directory / MEMORY_FILE

    @property
    def devices(self) -> Path:
        """Not there before it is written."""
        return self.directory / DEVICES_FILE

    @property
    def log(self) -> Path:
        """For errors alone."""
        return self.directory / _LOG_FILE

    def write_devices(self, data: bytes) -> None:
        """What the machine is besides its memory."""
        with _made(self.devices) as file:
            file.write(data)


@contextmanager
def saved_files(directory: Path, memory_mib: int, mode: int = 0o400) -> Iterator[SavedFiles]:
    """Make them for the block, that fills them; nobody writes to them afterwards. In the end they have the mode.

    Raises:
        BangerError: ``exhausted``; and whatever the block raises. No file is left then.
    """
    files = SavedFiles(directory)
    try:
        with _made(files.memory) as file:
            file.truncate(memory_mib * MIB)
        yield files
        for path in (files.memory, files.devices):
            sync_path(path)
            os.chown(path, os.geteuid(), os.getegid())
            path.chmod(mode)
    except OSError as error:
        _remove(files.memory, files.devices)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room(files.memory) from error
        raise
    except BaseException:
        _remove(files.memory, files.devices)
        raise
    finally:
        _remove(files.log)


def no_room(memory: Path) -> BangerError:
    """The error for a disk that does not take a machine's state."""
    return BangerError(
        ErrorKind.EXHAUSTED, "there was no room on the disk for the memory of the machine", subject=str(memory),
        hint="banger system df",
    )  # fmt: skip


def _made(path: Path):  # type: ignore[no-untyped-def]
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
