"""Reading local files with a size that is fixed beforehand, since a tar header comes before the data.

The kernel's own file systems (``/proc``, ``/sys``) say 0 or 4096 bytes of a file whose content they make up as it is
read; a log grows; a pipe or a terminal never ends. Nothing here waits for a writer, and nothing is padded.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from banger.core.errors import BangerError, ErrorKind

#: Files up to here are read whole before their size is told: none of them can lie.
HEAD_BYTES = 1 << 20
#: Content that has no size of its own is put into a temporary file first, up to here.
MOST_UNSIZED_BYTES = 1 << 30
_COPY_BYTES = 1 << 20


class FixedSizeFile:
    """What ``tarfile`` reads: exactly ``size`` bytes, or an error."""

    def __init__(self, path: Path, head: bytes, rest: IO[bytes] | None, size: int) -> None:
        self.size = size
        self._path = path
        self._head = io.BytesIO(head)
        self._rest = rest

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes. Raises ``conflict`` if the file has fewer by now."""
        data = self._head.read(count)
        while len(data) < count:
            more = self._rest.read(count - len(data)) if self._rest else b""
            if not more:
                message = f'"{self._path}" became shorter while it was read'
                raise BangerError(ErrorKind.CONFLICT, message, subject=str(self._path), hint="copy it again")
            data += more
        return data


@contextmanager
def open_fixed_size(path: Path) -> Iterator[FixedSizeFile]:
    """A regular file, read without following a link and without waiting.

    Raises:
        BangerError: ``conflict`` if it is no regular file any more, ``exhausted`` for endless content.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BangerError(ErrorKind.CONFLICT, f'"{path}" was replaced while it was read', subject=str(path))
        head = _read(descriptor, HEAD_BYTES)
        facts = os.fstat(descriptor)
        if len(head) < HEAD_BYTES:
            yield FixedSizeFile(path, head, None, len(head))
        elif facts.st_size > HEAD_BYTES and (facts.st_blocks or not _is_made_up(facts.st_dev)):
            yield FixedSizeFile(path, head, file, facts.st_size)
        else:
            with tempfile.TemporaryFile() as whole:
                size = _spool(path, head, descriptor, whole)
                yield FixedSizeFile(path, b"", whole, size)


def _read(descriptor: int, count: int) -> bytes:
    """Up to ``count`` bytes; fewer only at the file's end."""
    data = bytearray()
    while len(data) < count and (more := os.read(descriptor, count - len(data))):
        data += more
    return bytes(data)


def _spool(path: Path, head: bytes, descriptor: int, whole: IO[bytes]) -> int:
    size, data = 0, head
    while data:
        whole.write(data)
        size += len(data)
        if size > MOST_UNSIZED_BYTES:
            message = f'"{path}" has no size of its own and goes on after {MOST_UNSIZED_BYTES} bytes'
            raise BangerError(ErrorKind.EXHAUSTED, message, subject=str(path))
        data = os.read(descriptor, _COPY_BYTES)
    whole.seek(0)
    return size


def _is_made_up(device: int) -> bool:
    """True for one of the kernel's own file systems (``/proc/self/mountinfo``, proc(5))."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0] in _MADE_UP
    return False


_MADE_UP = frozenset(
    "proc sysfs cgroup cgroup2 debugfs tracefs securityfs configfs pstore bpf efivarfs selinuxfs".split()
)
