"""Limiting the size of logs that are written by others: a guest decides how much it prints."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from banger.core.evidence import COMMAND_FILE
from banger.core.units import MIB

LIMIT_BYTES = 8 * MIB
#: What a VMM has counted, beside its log, if it does; some hours of it.
METRICS_FILE = "vmm-metrics.log"
METRICS_LIMIT_BYTES = MIB
#: What grows in the directory of a VM that runs, and how much of it is kept, in bytes.
_LIMITS = {"console.log": LIMIT_BYTES, "vmm.log": LIMIT_BYTES, METRICS_FILE: METRICS_LIMIT_BYTES}
_CHUNK_BYTES = MIB
_TAIL_BYTES = 16 * 1024


def bound(path: Path, limit_bytes: int = LIMIT_BYTES) -> bool:
    """If the log is longer than ``limit_bytes``, keep its end as ``NAME.1`` and empty it; true if it was.

    The file stays the same one, because its writer has it open; the writer must append (``O_APPEND``), so that it goes
    on at the new end; one that goes on at the old end instead leaves a hole before it, which takes no room and does not
    count. What is printed between the copy and the cut, a few milliseconds, is lost. So is the end of a log
    that has filled the disk, and has no room for a copy beside it: it is cut all the same.
    """
    try:
        if _taken_bytes(path.stat()) <= limit_bytes:
            return False
    except FileNotFoundError:
        return False
    fresh = path.with_name(f"{path.name}.new")
    try:
        _copy_end(path, fresh, limit_bytes)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os.truncate(path, 0)
    else:
        os.truncate(path, 0)
        fresh.replace(path.with_name(f"{path.name}.1"))
    return True


def limits_of(directory: Path) -> Iterator[tuple[Path, int]]:
    """The logs of the VM with that directory, each with its limit in bytes; some may not be there."""
    for name, limit_bytes in _LIMITS.items():
        yield directory / name, limit_bytes


def _taken_bytes(stat: os.stat_result) -> int:
    """The length of a file without its holes."""
    return min(stat.st_size, stat.st_blocks * 512)


def begin_anew(log: Path) -> None:
    """Put what a log holds aside as ``NAME.1``: its next writer begins at the begin, whatever is there."""
    with suppress(FileNotFoundError):
        if log.stat().st_size:
            log.replace(log.with_name(f"{log.name}.1"))
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600))


def _copy_end(path: Path, fresh: Path, size_bytes: int) -> None:
    with path.open("rb") as log, os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as kept:
        log.seek(-size_bytes, os.SEEK_END)
        while chunk := log.read(min(size_bytes, _CHUNK_BYTES)):  # the writer goes on meanwhile
            size_bytes -= kept.write(chunk)


def make_room(*logs: Path) -> None:
    """Cut logs before a start, so that what the boot prints is whole: none of it is cut by :func:`bound`."""
    for log in logs:
        with suppress(OSError):  # a full disk: the start has more to say about that
            bound(log, LIMIT_BYTES // 2)


def note_command(vmm_log: Path, version: str, argv: Sequence[str]) -> None:
    """Keep a VMM's command line and version beside its log. It only serves people, so a full disk does no harm."""
    path = vmm_log.with_name(COMMAND_FILE)
    with suppress(OSError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"version": version, "argv": list(argv)}, file)


def log_tail(path: Path, since: int = 0) -> str:
    """The last few lines' worth of a log, from the byte offset ``since`` on; of all of it if it was cut meanwhile."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL_BYTES, since if since <= size else 0))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
