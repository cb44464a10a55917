"""Overlays for tests of committing: made by hand or by the kernel, and merged by banger."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from banger.core.operation import Operation
from banger.core.ports import RootfsFacts
from banger.posix.copying import copy_file
from banger.rootfs.commit import commit_rootfs
from banger.rootfs.disk import make_disk
from tests.support.ext4_reader import debugfs
from tests.support.rootfs import Listing, archive, build, directory, read_image

WHITEOUT = (0, 0)


def image_of(folder: Path, *members: bytes) -> Path:
    """An ext4 with these members."""
    folder.mkdir()
    build(folder, archive(*members), size_bytes=64 << 20)
    return folder / "rootfs.ext4"


def disk_of(folder: Path, *members: bytes, marks: Mapping[str, Mapping[str, str]] | None = None) -> Path:
    """A VM's disk with these members, whose names begin with ``upper/``.

    ``marks`` are attributes by path; the overlay's own only get there behind the back of banger's writer.
    """
    disk = image_of(folder, directory(b"upper"), directory(b"work"), *members)
    for path, values in (marks or {}).items():
        debugfs(disk, *(f"ea_set {path} {name} {value}" for name, value in values.items()))
    return disk


def commit(base: Path, disk: Path, target: Path, *keep: str, operation: Operation | None = None) -> RootfsFacts:
    """Merge, as the daemon does."""
    return commit_rootfs(
        base, disk, target, copy=copy_file, keep=keep, operation=operation or Operation("image.commit", "test")
    )


def committed(base: Path, disk: Path, *keep: str) -> Listing:
    """Merge and read the image back with an independent reader."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "rootfs.ext4")
        commit(base, disk, target, *keep)
        assert list(Path(folder).iterdir()) == [target]
        return comparable(read_image(target))


def comparable(listing: Listing) -> Listing:
    """Without link counts, which an overlay reports as its layers have them, and ``lost+found``."""
    return {path: replace(facts, links=0) for path, facts in listing.items() if path != b"lost+found"}


@contextmanager
def overlay(base: Path, disk: Path) -> Iterator[Path]:
    """The kernel's own overlay of the two, as the guest's init mounts it but with inode numbers of its own (root only)."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lower, data, merged = folder / "base", folder / "data", folder / "merged"
        _mount(stack, lower, "-t", "ext4", "-o", "loop,ro,noload", base)
        _mount(stack, data, "-t", "ext4", "-o", "loop", disk)
        for name in ("upper", "work"):
            (data / name).mkdir(exist_ok=True)
        options = f"lowerdir={lower},upperdir={data}/upper,workdir={data}/work,redirect_dir=on,xino=on"
        _mount(stack, merged, "-t", "overlay", "-o", options, "root")
        yield merged


def _mount(stack: ExitStack, at: Path, *arguments: str | Path) -> None:
    at.mkdir()
    subprocess.run(["mount", *arguments, at], check=True, capture_output=True)
    stack.callback(subprocess.run, ["umount", at], check=True)


@cache
def cannot_mount_overlays() -> str:
    """Why this host cannot, or nothing."""
    if os.geteuid() != 0:
        return "mounting takes root"
    if shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        return "e2fsprogs is not installed"
    try:
        with tempfile.TemporaryDirectory() as folder:
            base, disk = Path(folder, "base"), Path(folder, "disk")
            make_disk(base, 16 << 20)
            make_disk(disk, 16 << 20)
            with overlay(base, disk):
                return ""
    except subprocess.CalledProcessError as error:
        return f"cannot mount an overlay: {error.stderr.decode().strip()}"


needs_overlays = [
    pytest.mark.root,
    pytest.mark.skipif(bool(cannot_mount_overlays()), reason=cannot_mount_overlays() or "-"),
]
