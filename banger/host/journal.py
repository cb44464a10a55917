"""The journal of what a VM holds on the host, next to its disk: ``handles.journal``.

Append-only: one line a change, ``CRC32 JSON``, synced before the change is made on the host. A line that was torn by a
crash, or anything else that does not check, ends what is believed: the lines before it still hold. The first line
of a file is the VM's own record, so that a VM is known again even if the store lost its row.

    9a3cf0d1 {"op": "vm", "vm": {…}}
    5d0e7b22 {"op": "put", "kind": "tap", "key": "bg1c…", "state": "intended", "detail": {}}
    01c4aa90 {"op": "strike", "kind": "tap", "key": null}
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Handle

#: A journal longer than this is not one of ours: a start writes some twenty lines, and a stop begins a new file.
MAX_BYTES = 1 << 20

#: What a write ends with on a full disk.
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class JournalState:
    """What a journal says. ``vm`` is the VM's record in its JSON form, or None; ``torn`` tells of a bad line."""

    vm: Mapping[str, Any] | None = None
    handles: dict[tuple[str, str], Handle] = field(default_factory=dict)
    torn: bool = False


def encode(record: Mapping[str, Any]) -> bytes:
    """One line."""
    body = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def put(handle: Handle) -> dict[str, Any]:
    """The record of a handle that is intended or active."""
    return {"op": "put", "kind": handle.kind, "key": handle.key, "state": handle.state, "detail": dict(handle.detail)}


def strike(kind: str, key: str | None) -> dict[str, Any]:
    """The record of a handle, or all of a kind, that is gone."""
    return {"op": "strike", "kind": kind, "key": key}


def replay(data: bytes, vm_id: str) -> JournalState:
    """Read a journal as far as it can be believed."""
    state = JournalState()
    for line in data.splitlines(keepends=True):
        record = _decode(line)
        if record is None or not _apply(state, record, vm_id):
            state.torn = True
            break
    return state


def _decode(line: bytes) -> dict[str, Any] | None:
    body = line[9:-1]
    if not line.endswith(b"\n") or line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = json.loads(body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _apply(state: JournalState, record: Mapping[str, Any], vm_id: str) -> bool:
    try:
        match record["op"]:
            case "vm":
                state.vm = record["vm"]
            case "put":
                kind, key = record["kind"], record["key"]
                state.handles[kind, key] = Handle(vm_id, kind, key, record["state"], record["detail"])
            case "strike":
                kind, only = record["kind"], record["key"]
                for key in [key for key in state.handles if key[0] == kind and only in (None, key[1])]:
                    del state.handles[key]
            case _:
                return False
    except KeyError:
        return False
    return True


class Journal:
    """One VM's file. Not thread-safe: only the VM's owner writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, vm_id: str) -> JournalState:
        """What it says; nothing if it is not there."""
        try:
            with self._path.open("rb", buffering=0) as file:
                return replay(file.read(MAX_BYTES), vm_id)
        except FileNotFoundError:
            return JournalState()

    @contextmanager
    def failures_told(self) -> Iterator[None]:
        """Say what it means that the file cannot be written: no room, or a directory that somebody removed."""
        try:
            yield
        except OSError as error:
            place = self._path.parent
            if error.errno in FULL:
                raise BangerError(
                    ErrorKind.EXHAUSTED, f'not enough room in "{place}"', subject=str(place),
                    cause=error.strerror or str(error), hint="banger system df",
                ) from error  # fmt: skip
            gone = isinstance(error, FileNotFoundError)
            raise BangerError(
                ErrorKind.NOT_FOUND if gone else ErrorKind.UNAVAILABLE,
                f'cannot write to the VM\'s directory "{place}"', subject=str(place),
                cause=error.strerror or str(error),
                hint="somebody removed it: delete the VM and create it again" if gone else "banger doctor",
            ) from error  # fmt: skip

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line; it is on the disk when this returns. A torn end is cut off first."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                end = _last_line_end(os.pread(descriptor, end, 0))
                os.ftruncate(descriptor, end)
            line = encode(record)
            while line:  # a disk that fills up takes a part first
                written = os.pwrite(descriptor, line, end)
                line, end = line[written:], end + written
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def begin(self, vm: Mapping[str, Any], handles: Iterable[Handle] = ()) -> None:
        """Begin a new file that holds the VM's record and ``handles``, in one step."""
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode({"op": "vm", "vm": vm}))
            for handle in handles:
                file.write(encode(put(handle)))
            file.flush()
            os.fdatasync(file.fileno())
        fresh.replace(self._path)


def _last_line_end(data: bytes) -> int:
    return data.rfind(b"\n") + 1
