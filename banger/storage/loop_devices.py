"""Loop devices by ioctl, with autoclear, and with names of our own.

``losetup`` can do neither at the instant in which a device is made. Numbers and structures: ``linux/loop.h``;
LOOP_CONFIGURE needs Linux 5.8.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind

_LOOP_CONFIGURE, _LOOP_CLR_FD, _LOOP_GET_STATUS64, _LOOP_CTL_GET_FREE = 0x4C0A, 0x4C01, 0x4C05, 0x4C82
_AUTOCLEAR = 4
#: struct loop_info64: device, inode, rdevice, offset, size limit; number, encryption type and key size, flags; then
#: file name, name of a cipher, key, two numbers for it.
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
#: struct loop_config: descriptor, block size, loop_info64, eight reserved numbers.
_CONFIG = struct.Struct(f"=2I{_INFO.size}s64s")
_NAME = 9
_SECTOR_BYTES = 512
#: Another process may take a free device before we do.
_TRIES = 20


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """One that shows a file.

    Attributes:
        path: ``/dev/loopN``.
        file: what it shows, as the kernel tells; " (deleted)" follows the path of a deleted one.
        name: what whoever made it called it; empty if this user may not ask.
    """

    path: Path
    file: str
    name: str


class LoopDevices:
    """The host's."""

    def __init__(self, dev: Path = Path("/dev"), sys_block: Path = Path("/sys/block")) -> None:
        self._dev = dev
        self._sys_block = sys_block

    @contextmanager
    def attached(self, file: Path, name: str, *, read_only: bool) -> Iterator[Path]:
        """A new device that shows ``file``; after the block it lives as long as something else uses it.

        Raises:
            BangerError: ``denied`` without the right to make one; ``unavailable`` if this host has none to give.
        """
        try:
            backing = os.open(file, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
            try:
                device, path = self._configured(configuration(backing, name))
            finally:
                os.close(backing)
        except OSError as error:
            kind = ErrorKind.DENIED if isinstance(error, PermissionError) else ErrorKind.UNAVAILABLE
            raise BangerError(
                kind,
                f'cannot make a loop device for "{file}"',
                subject=str(file),
                cause=f"{error.filename or 'loop device'}: {error.strerror}",
                hint="loop devices take root, and Linux 5.8 or newer: modprobe loop",
            ) from error
        try:
            yield path
        finally:
            os.close(device)

    def all(self) -> list[LoopDevice]:
        """Every device that shows a file."""
        found = []
        for entry in sorted(self._sys_block.glob("loop*/loop/backing_file")):
            path = self._dev / entry.parent.parent.name
            try:
                file = entry.read_text(errors="surrogateescape").rstrip("\n")
            except OSError:  # cleared since
                continue
            name = _name_of(path)
            if name is not None:
                found.append(LoopDevice(path, file, name))
        return found

    def named(self, name: str) -> list[LoopDevice]:
        """Those that somebody called so."""
        return [device for device in self.all() if device.name == name]

    def clear(self, device: LoopDevice) -> None:
        """Take the file away from a device; already gone is success.

        Raises:
            OSError: ``EBUSY`` while something uses it: it clears itself after that.
        """
        try:
            descriptor = os.open(device.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.ioctl(descriptor, _LOOP_CLR_FD)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        finally:
            os.close(descriptor)
        if device in self.all():
            raise OSError(errno.EBUSY, "the device is in use", str(device.path))

    def _configured(self, config: bytes) -> tuple[int, Path]:
        control = os.open(self._dev / "loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                path = self._dev / f"loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
                device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                except OSError as error:
                    os.close(device)
                    if error.errno != errno.EBUSY:
                        raise
                else:
                    return device, path
        finally:
            os.close(control)
        raise OSError(errno.EBUSY, "others take every free loop device")


def configuration(backing: int, name: str) -> bytes:
    """A ``struct loop_config``. The device is as read-only as the descriptor ``backing`` is.

    Blocks have 512 bytes whatever the host's disk has, so that any image's size fits.
    """
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, name.encode(), b"", b"", 0, 0)
    return _CONFIG.pack(backing, _SECTOR_BYTES, info, b"")


def _name_of(path: Path) -> str | None:
    """Empty if this user may not ask; None for one that is just being cleared: its file is told for a moment longer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw = fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, bytes(_INFO.size))
        finally:
            os.close(descriptor)
    except OSError as error:
        return None if error.errno == errno.ENXIO else ""
    return bytes(_INFO.unpack(raw)[_NAME]).partition(b"\0")[0].decode(errors="replace")
