"""A host with device-mapper and loop devices made of plain files: it knows who uses what, and refuses as Linux does."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.posix.copying import copy_unsynced
from banger.storage.device_mapper import DeviceMapper
from banger.storage.loop_devices import LoopDevice


class Crash(BaseException):
    """The process dies here."""


@dataclass
class FakeHost:
    """``log`` tells what was done; ``fuse`` is at how many more points the process lives on: before and after each deed."""

    root: Path
    loops: dict[str, LoopDevice] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    fuse: int = -1

    @property
    def mapper(self) -> DeviceMapper:
        return DeviceMapper(self.dmsetup, self.root / "sys", self.root)

    def burn(self) -> None:
        if self.fuse == 0:
            raise Crash
        self.fuse -= 1

    # -- dmsetup ---------------------------------------------------------------------------------------

    def dmsetup(self, arguments: list[str], stdin: str) -> tuple[int, str]:
        verb, name = arguments[0], arguments[-1]
        if answer := self.answers.get(f"{verb} {name}") or self.answers.get(verb):
            return answer
        if verb == "status":
            return 0, "0 131072 snapshot 64/132096 64"
        self.burn()
        self.log.append(f"{verb} {name}")
        answer = self._create(name, stdin) if verb == "create" else self._remove(name)
        self.burn()
        return answer

    def _create(self, name: str, table: str) -> tuple[int, str]:
        if name in self.tables:
            return 1, f"device-mapper: create ioctl on {name}  failed: Device or resource busy\nCommand failed."
        self.tables[name] = table
        node = f"dm-{len(self.log)}"
        (self.root / "sys" / node / "dm").mkdir(parents=True)
        (self.root / "sys" / node / "dm/name").write_text(f"{name}\n")
        size = sum(int(line.split()[1]) for line in table.splitlines()) * 512
        copy_unsynced(self._below(table), self.root / node, CancelToken())
        os.truncate(self.root / node, size)
        return 0, ""

    def _below(self, table: str) -> Path:
        """What is read through: the file of a loop device, or the device below."""
        below = Path(table.split()[3])
        loop = next((loop for loop in self.loops.values() if loop.path == below), None)
        return Path(loop.file) if loop else below

    def _remove(self, name: str) -> tuple[int, str]:
        if name not in self.tables:
            return 1, f"device-mapper: remove ioctl on {name}  failed: No such device or address\nCommand failed."
        path = self.mapper.devices()[name]
        if name in self.held or any(str(path) in table for table in self.tables.values()):
            return 1, f"device-mapper: remove ioctl on {name}  failed: Device or resource busy\nCommand failed."
        shutil.rmtree(self.root / "sys" / path.name)
        del self.tables[name]
        self._autoclear()
        return 0, ""

    # -- loop devices ----------------------------------------------------------------------------------

    @contextmanager
    def attached(self, file: Path, name: str, *, read_only: bool) -> Iterator[Path]:
        self.burn()
        self.log.append(f"loop {name}{' read-only' if read_only else ''}")
        device = LoopDevice(self.root / f"loop{len(self.log)}", str(file), name)
        self.loops[name] = device
        self.held.add(name)
        try:
            self.burn()
            yield device.path
        finally:
            self.held.discard(name)
            self._autoclear()

    def all(self) -> list[LoopDevice]:
        return list(self.loops.values())

    def named(self, name: str) -> list[LoopDevice]:
        return [loop for loop in self.all() if loop.name == name]

    def clear(self, device: LoopDevice) -> None:
        if self._used(device):
            raise OSError(errno.EBUSY, "the device is in use", str(device.path))
        self.log.append(f"clear {device.name}")
        self.loops.pop(device.name, None)

    def _autoclear(self) -> None:
        for loop in self.all():
            if not self._used(loop):
                del self.loops[loop.name]

    def _used(self, loop: LoopDevice) -> bool:
        return loop.name in self.held or any(str(loop.path) in table.split() for table in self.tables.values())
