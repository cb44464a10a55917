"""Reading a user's local files, regular files only: a pipe could block, a device be endless."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import BinaryIO

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind

#: A kernel is read into memory to be recognised; one with all its debugging symbols is smaller.
MOST_KERNEL_BYTES = 1 << 30
_PIECE_BYTES = 1 << 20


def read_kernel(path: Path) -> bytes:
    """All of a kernel's file.

    Raises:
        BangerError: ``invalid`` if it is no regular file, or larger than any kernel.
        OSError: it cannot be read.
    """
    with _opened(path) as file:
        data = file.read(MOST_KERNEL_BYTES + 1)
    if len(data) > MOST_KERNEL_BYTES:
        raise _invalid(path, f"is larger than {MOST_KERNEL_BYTES} bytes: it is not a kernel")
    return data


def copy(source: Path, target: Path, token: CancelToken) -> None:
    """Copy the content of a regular file, as long as it was when it was opened.

    Raises:
        BangerError: ``invalid`` if it is none; ``cancelled``.
        OSError: it cannot be read, or ``target`` not be written.
    """
    with _opened(source) as reading, target.open("wb") as writing:
        left = os.fstat(reading.fileno()).st_size
        while left and (piece := reading.read(min(_PIECE_BYTES, left))):
            token.raise_if_cancelled()
            writing.write(piece)
            left -= len(piece)


def _opened(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _invalid(path, "is not a regular file")
    return os.fdopen(descriptor, "rb")


def _invalid(path: Path, what: str) -> BangerError:
    return BangerError(ErrorKind.INVALID, f'"{path}" {what}', subject=str(path), hint=f"ls -l {shlex.quote(str(path))}")
