"""device-mapper through ``dmsetup``, which waits for udev; existing devices are read from sysfs.

Devices are opened as the kernel names them, ``/dev/dm-N``: without a running udev, dmsetup of Debian makes no links in
``/dev/mapper``.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.tools import run_tool

_TIMEOUT_S = 30.0
_BUSY = re.compile(r"Device or resource busy|is in use|held open|open count", re.IGNORECASE)
_GONE = re.compile(r"No such device|not found|does not exist", re.IGNORECASE)
_NO_RIGHT = re.compile(r"Permission denied|Operation not permitted", re.IGNORECASE)

Run = Callable[[list[str], str], tuple[int, str]]
"""Runs dmsetup with arguments and standard input; its exit code and what it printed."""


def run_dmsetup(arguments: list[str], stdin: str = "") -> tuple[int, str]:
    """The host's own dmsetup."""
    return run_tool("dmsetup", arguments, stdin=stdin, timeout_s=_TIMEOUT_S)


class DeviceMapper:
    """The host's device-mapper devices."""

    def __init__(self, run: Run = run_dmsetup, sys_block: Path = Path("/sys/block"), dev: Path = Path("/dev")) -> None:
        self._run = run
        self._sys_block = sys_block
        self._dev = dev

    def devices(self) -> dict[str, Path]:
        """All that there are, by name, and where to open them."""
        found = {}
        for entry in self._sys_block.glob("dm-*/dm/name"):
            try:
                found[entry.read_text().strip()] = self._dev / entry.parent.parent.name
            except OSError:  # removed since
                continue
        return found

    def create(self, name: str, table: str, *, read_only: bool) -> Path:
        """Make a device, ready to be used when this returns.

        Raises:
            OSError: ``EBUSY``: there is one of that name, or something below it is in use.
            BangerError: ``denied``; ``unavailable`` with dmsetup's own words.
        """
        flags = ["--readonly"] if read_only else []
        self._dmsetup(["create", *flags, name], table, f'cannot make the device "{name}"')
        try:
            return self.devices()[name]
        except KeyError:
            complaint = f'the device "{name}" is gone as soon as it was made'
            raise BangerError(ErrorKind.UNAVAILABLE, complaint, subject=name, hint="banger doctor") from None

    def remove(self, name: str) -> None:
        """Remove a device.

        Raises:
            OSError: ``EBUSY`` while something uses it; ``ENXIO`` if there is none.
            BangerError: ``denied``; ``unavailable`` with dmsetup's own words.
        """
        self._dmsetup(["remove", name], "", f'cannot remove the device "{name}"')

    def status(self, name: str) -> str:
        """The status line of a device with one target. Raises as :meth:`remove`."""
        return self._dmsetup(["status", name], "", f'cannot read the state of the device "{name}"')

    def _dmsetup(self, arguments: list[str], stdin: str, complaint: str) -> str:
        code, output = self._run(arguments, stdin)
        if code != 0:
            raise failure(output, complaint, arguments[-1])
        return output


def failure(output: str, complaint: str, name: str) -> Exception:
    """What dmsetup's words mean: an ``OSError`` for what a cleanup may meet, a ``BangerError`` otherwise."""
    for pattern, number in ((_BUSY, errno.EBUSY), (_GONE, errno.ENXIO)):
        if pattern.search(output):
            return OSError(number, f"{complaint}: {_first_line(output)}", name)
    kind = ErrorKind.DENIED if _NO_RIGHT.search(output) else ErrorKind.UNAVAILABLE
    return BangerError(
        kind, complaint, subject=name, cause=_first_line(output), hint="modprobe dm-snapshot, and see banger doctor"
    )


def _first_line(output: str) -> str:
    """What is the matter; "Command failed" comes after it."""
    return next((line.strip() for line in output.splitlines() if line.strip()), "it said nothing")
