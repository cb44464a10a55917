"""What storage tests share: a ledger in memory, images, drivers that may be absent here, file systems that clone."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from banger.config import Config
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import Handle, Storage
from banger.host.cascade import run_all
from banger.layout import Layout
from banger.storage.drivers import all_drivers, probe
from banger.storage.objects import StorageObjects
from tests.support.ext4_reader import run

INSTALLATION = "0123456789ab"
MIB = 1 << 20
DRIVERS = ("overlay", "copy", "reflink", "dm-snapshot")


@dataclass
class MemoryLedger:
    """One VM's ledger; ``history`` tells what was written, in order."""

    vm_id: str = "cafe"
    rows: dict[tuple[str, str], Handle] = field(default_factory=dict)
    history: list[tuple[str, str, str]] = field(default_factory=list)

    def intend(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        self._put("intended", kind, key, detail)

    def activate(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        self._put("active", kind, key, detail)

    def strike(self, kind: str, key: str | None = None) -> None:
        self.history.append(("struck", kind, key or "*"))
        for row in [row for row in self.rows if row[0] == kind and key in (None, row[1])]:
            del self.rows[row]

    def of(self, kind: str | None = None) -> list[Handle]:
        return [handle for handle in self.rows.values() if kind in (None, handle.kind)]

    def _put(self, state: str, kind: str, key: str, detail: Mapping[str, Any] | None) -> None:
        self.history.append((state, kind, key))
        self.rows[kind, key] = Handle(self.vm_id, kind, key, state, detail or {})


def operation() -> Operation:
    return Operation("vm.test", "web")


def config(**settings: object) -> Config:
    """Defaults, and ``storage__driver="copy"`` for ``storage.driver``."""
    env = {"BANGER_" + name.upper().replace("__", "_"): str(value) for name, value in settings.items()}
    return Config.load(Path("/nonexistent"), env)


def image(path: Path, size_mib: int = 32, **files: str) -> Path:
    """A clean ext4 with ``etc/hostname`` in it, and with ``files`` in its root."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        (tree / "etc").mkdir()
        (tree / "etc/hostname").write_text("image\n")
        for name, text in files.items():
            (tree / name).write_text(text)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path, f"{size_mib}M")
    return path


def read_file(disk: Path, name: str) -> str:
    """The content of a file on a disk; empty if there is none."""
    return run("debugfs", "-R", f"cat {name}", disk, accept=(0, 1))


def write_file(disk: Path, name: str, text: str) -> None:
    """Put a file on a disk, as a guest would."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as source:
        source.write(text)
        source.flush()
        run("debugfs", "-w", "-R", f"write {source.name} {name}", disk)


@dataclass
class Rig:
    """A driver in an installation of its own."""

    storage: Storage
    layout: Layout
    ledger: MemoryLedger = field(default_factory=MemoryLedger)

    def vm_dir(self, vm_id: str = "cafe") -> Path:
        path = self.layout.vm_dir(vm_id)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def create(self, rootfs: Path, size_mib: int = 64, vm_id: str = "cafe") -> None:
        self.storage.create(self.vm_dir(vm_id), rootfs, size_mib, operation())

    def disk(self, rootfs: Path, vm_id: str = "cafe") -> Path:
        """Attach; the drive that the guest may write to."""
        drives = self.storage.attach(vm_id, self.vm_dir(vm_id), rootfs, self.ledger)
        return next(drive.path for drive in drives if not drive.read_only)

    def clear(self) -> None:
        """Remove all that the host shows of this installation, as reconcile does; udev may hold it for a moment."""
        look = StorageObjects(self.layout, INSTALLATION)
        run_all([CleanupStep(found.key, found.remove) for found in look() for _ in range(2)])

    def detach(self, vm_id: str = "cafe") -> None:
        run_all(self.storage.detach(vm_id, self.vm_dir(vm_id), self.ledger))


@contextmanager
def rig_of(name: str, home: Path) -> Iterator[Rig]:
    """The driver ``name``; skips where it does not work. Everything is taken down afterwards."""
    layout = Layout.from_environment({"BANGER_HOME": str(home)})
    layout.make_directories()
    found = probe(name, layout)
    if not found.works:
        pytest.skip(found.reason)
    rig = Rig(all_drivers(config(), INSTALLATION)[name], layout)
    try:
        yield rig
    finally:
        for vm_id in [path.name for path in (layout.data / "vms").iterdir()]:
            rig.detach(vm_id)


@contextmanager
def driver_rig(name: str, folder: Path) -> Iterator[Rig]:
    """As :func:`rig_of`; for clones, on a file system that can. Skips where there is none."""
    if name != "reflink":
        with rig_of(name, folder) as rig:
            yield rig
        return
    if reason := why_no_cloning():
        pytest.skip(reason)
    with cloning_file_system(folder) as mount, rig_of(name, mount) as rig:
        yield rig


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def why_no_cloning() -> str:
    """Why no file system that clones can be mounted here, or nothing."""
    if os.geteuid() != 0:
        return "mounting takes root"
    if not _mkfs()[0]:
        return "neither mkfs.btrfs nor mkfs.xfs is installed"
    try:
        with tempfile.TemporaryDirectory() as folder, cloning_file_system(Path(folder)):
            return ""
    except subprocess.CalledProcessError as error:
        return f"cannot mount a file system that clones: {error.stderr.decode().strip()}"


@contextmanager
def cloning_file_system(folder: Path) -> Iterator[Path]:
    """A small Btrfs or XFS, mounted below ``folder``."""
    name, size = _mkfs()
    disk, mount = folder / "disk", folder / "mount"
    with disk.open("wb") as file:
        file.truncate(size)
    subprocess.run([name, "-q", disk], check=True, capture_output=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, mount], check=True, capture_output=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)
        disk.unlink()


def _mkfs() -> tuple[str, int]:
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for program, size in (("mkfs.btrfs", 256 * MIB), ("mkfs.xfs", 512 * MIB)):
        if found := shutil.which(program, path=search):
            return found, size
    return "", 0
