"""Checking an ext4 image that is registered in place. The file is never written to."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.rootfs.ext4.reader import Ext4Reader, Superblock
from banger.rootfs.ext4.reader_device import open_image_file
from banger.rootfs.tools import run_tool

_MOUNTINFO = Path("/proc/self/mountinfo")
_SYS_BLOCK = Path("/sys/block")
#: e2fsck's exit code with ``-n`` when it found nothing to repair (e2fsck(8), EXIT CODE).
_E2FSCK_CLEAN = 0
_QUOTED_BYTES = 2000
#: How mountinfo writes spaces, tabs, newlines and backslashes (proc(5)).
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class ValidatedRootfs:
    """What a valid image is.

    Attributes:
        size_bytes: apparent size of the file.
        disk_bytes: what it occupies on the host.
        uuid: of the file system.
        features: of the file system, as ``mke2fs -O`` takes them.
    """

    size_bytes: int
    disk_bytes: int
    uuid: str
    features: tuple[str, ...]


def validate_rootfs(
    path: Path, operation: Operation, *, mountinfo: Path = _MOUNTINFO, sys_block: Path = _SYS_BLOCK
) -> ValidatedRootfs:
    """Make sure that ``path`` is a clean ext4 that nobody has mounted.

    Args:
        path: a file; reached through links if the user says so.
        operation: gets the step "check file system"; its token cancels and ends e2fsck.
        mountinfo: this process's mounts (proc(5)).
        sys_block: the host's block devices.

    Raises:
        BangerError: ``not_found``; ``denied``; ``invalid`` if it is no ext4, not clean or damaged; ``conflict`` if it
            is attached to a loop device or changes while it is checked; ``unavailable`` without e2fsck; ``cancelled``.
    """
    with operation.step("check file system"):
        before = _facts(path)
        # First of all: what is said below about a journal to replay would be bad advice for a mounted one.
        _check_unused(path, before, mountinfo, sys_block)
        with Ext4Reader(path) as image:
            superblock = image.superblock
        _check_clean(path, superblock)
        _check_consistent(path, operation)
        after = _facts(path)
    if _identity(before) != _identity(after):
        raise _in_use(path, "the file changed while it was checked", hint="stop what writes to it and try again")
    return ValidatedRootfs(after.st_size, after.st_blocks * 512, str(superblock.uuid), superblock.features)


def _facts(path: Path) -> os.stat_result:
    descriptor = open_image_file(path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _check_unused(path: Path, facts: os.stat_result, mountinfo: Path, sys_block: Path) -> None:
    """Refuse a file that a loop device shows: whoever has that can write to it at any time."""
    for device in _loops_of(facts, path, sys_block):
        where = _mount_point(device, mountinfo)
        if where:
            raise _in_use(path, f"it is mounted at {where} through /dev/{device}", hint=f"umount {shlex.quote(where)}")
        raise _in_use(path, f"it is attached to /dev/{device}", hint=f"losetup -d /dev/{device}")


def _loops_of(facts: os.stat_result, path: Path, sys_block: Path) -> Iterator[str]:
    """Names of the loop devices whose backing file is this one, under whatever name."""
    for entry in sorted(sys_block.glob("loop*/loop/backing_file")):
        try:
            backing = Path(os.fsdecode(entry.read_bytes().rstrip(b"\n")))
        except OSError:  # detached since
            continue
        try:
            shown = backing.stat()
        except OSError:  # deleted, or in another mount namespace: the name is all there is
            same = backing == path.resolve()
        else:
            same = (shown.st_dev, shown.st_ino) == (facts.st_dev, facts.st_ino)
        if same:
            yield entry.parent.parent.name


def _mount_point(device: str, mountinfo: Path) -> str:
    """Where a block device is mounted; empty if it is not, as far as this process can see."""
    try:
        lines = mountinfo.read_bytes().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        if rest.split(b" ")[1:2] == [b"/dev/" + device.encode()]:
            return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields.split(b" ")[4]))
    return ""


def _check_clean(path: Path, superblock: Superblock) -> None:
    if not superblock.is_clean:
        raise BangerError(
            ErrorKind.INVALID,
            f'the file system in "{path}" is not clean: it was not unmounted properly, or has known errors',
            subject=str(path),
            hint=f"e2fsck -f {shlex.quote(str(path))}",
        )


def _check_consistent(path: Path, operation: Operation) -> None:
    code, output = run_tool("e2fsck", ["-f", "-n", str(path)], token=operation.token)
    if code != _E2FSCK_CLEAN:
        raise BangerError(
            ErrorKind.INVALID,
            f'the file system in "{path}" is damaged',
            subject=str(path),
            cause=output[-_QUOTED_BYTES:],
            hint=f"e2fsck -f {shlex.quote(str(path))}",
        )


def _identity(facts: os.stat_result) -> tuple[int, int, int, int]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _in_use(path: Path, cause: str, hint: str) -> BangerError:
    return BangerError(ErrorKind.CONFLICT, f'"{path}" is in use', subject=str(path), cause=cause, hint=hint)
