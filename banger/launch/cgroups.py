"""Limits by cgroup v2 in a delegated subtree (kernel: Documentation/admin-guide/cgroup-v2.rst).

Nothing is changed in a part that somebody else manages: where systemd runs, only what it delegated is used, which it
marks with an extended attribute (systemd: docs/CGROUP_DELEGATION.md).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.names import ID_LENGTH
from banger.core.ports import HostObject
from banger.launch.environment import BOOTED
from banger.launch.port import Limits
from banger.posix.files import text_or_empty

ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_CONTROLLERS = ("cpu", "memory", "pids")
_PERIOD_US = 100_000
#: The kernel needs a moment after the last process of a cgroup has ended.
_REMOVE_TIMEOUT_S = 2.0
_REMOVE_INTERVAL_S = 0.02


class NoDelegationError(Exception):
    """No part of the tree is ours; the message says why, for people."""


def delegated_part(root: Path = ROOT, own: Path = _OWN, systemd: Path = BOOTED) -> Path:
    """The directory below which we may make cgroups, its controllers enabled for them.

    Processes and limited children exclude each other in one cgroup, so this is the parent of the cgroup that we are
    in, where we were put into a leaf, or the root of a tree in which that rule does not hold.

    Raises:
        NoDelegationError: there is none.
    """
    if not (root / "cgroup.controllers").exists():
        raise NoDelegationError(f"cgroup v2 is not mounted at {root}")
    here = root / _own_path(own).lstrip("/")
    reasons = []
    for candidate in (here.parent, here) if here != root else (here,):
        reason = _obstacle(candidate, systemd) or _enable(candidate)
        if not reason:
            return candidate
        reasons.append(reason)
    raise NoDelegationError("; ".join(reasons))


@dataclass(frozen=True, slots=True)
class Cgroups:
    """One cgroup for each VM, below ``base``."""

    base: Path
    installation: str

    def path(self, vm_id: str) -> Path:
        """Where a VM's cgroup is."""
        return self.base / f"{self._prefix}{vm_id}"

    def make(self, vm_id: str, limits: Limits) -> Path:
        """Make a VM's cgroup and set its limits; one that is there already gets them too.

        Raises:
            BangerError: ``unavailable``.
        """
        path = self.path(vm_id)
        try:
            path.mkdir(exist_ok=True)
            for name, value in settings(limits).items():
                (path / name).write_text(value)
        except OSError as error:
            raise BangerError(
                ErrorKind.UNAVAILABLE, f'cannot make the cgroup "{path}"', subject=str(path), cause=str(error),
                hint="set vmm.limits to none",
            ) from error  # fmt: skip
        return path

    def ran_out_of_memory(self, vm_id: str) -> bool:
        """True if the kernel killed something in a VM's cgroup for want of memory."""
        return oom_kills(text_or_empty(self.path(vm_id) / "memory.events")) > 0

    def host_objects(self) -> Sequence[HostObject]:
        """The cgroups of this installation."""
        found = []
        for path in sorted(self.base.glob(f"{self._prefix}*")):
            vm_id = path.name.removeprefix(self._prefix)
            if len(vm_id) != ID_LENGTH:
                continue
            try:
                since = path.stat().st_ctime
            except FileNotFoundError:
                continue
            found.append(HostObject("cgroup", str(path), vm_id, "limits of a VMM", partial(remove, path), since=since))
        return found

    @property
    def _prefix(self) -> str:
        return f"banger-{self.installation}-"


def settings(limits: Limits) -> dict[str, str]:
    """The files of a cgroup and what to write into them. Pure."""
    quota = str(limits.cpu_percent * _PERIOD_US // 100) if limits.cpu_percent else "max"
    return {
        "cpu.max": f"{quota} {_PERIOD_US}",
        "memory.max": str(limits.memory_bytes or "max"),
        "memory.oom.group": "1",
        "pids.max": str(limits.tasks or "max"),
    }


def oom_kills(events: str) -> int:
    """The count in the text of ``memory.events``. Pure."""
    return next((int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill ")), 0)


def remove(path: Path) -> None:
    """Remove a cgroup that no process is in; already gone is success.

    Raises:
        OSError: ``EBUSY`` if there still is one.
    """
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    while True:
        try:
            return path.rmdir()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(_REMOVE_INTERVAL_S)


def _own_path(own: Path) -> str:
    return next((line[3:] for line in own.read_text(encoding="utf-8").splitlines() if line.startswith("0::")), "/")


def _obstacle(candidate: Path, systemd: Path) -> str:
    """Why a cgroup is not ours to divide; empty if it is."""
    if not os.access(candidate, os.W_OK) or not os.access(candidate / "cgroup.procs", os.W_OK):
        return f"no permission for {candidate}"
    if systemd.is_dir() and not _is_marked(candidate):
        return f"{candidate} is systemd's and was not delegated"
    missing = [name for name in _CONTROLLERS if name not in text_or_empty(candidate / "cgroup.controllers").split()]
    return f"{candidate} has no controller for {', '.join(missing)}" if missing else ""


def _is_marked(candidate: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(candidate, name) == b"1":
                return True
    return False


def _enable(candidate: Path) -> str:
    """Have the children of a cgroup limited; why that is refused, or empty."""
    try:
        (candidate / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in _CONTROLLERS))
    except OSError as error:
        return f"{candidate} holds processes" if error.errno == errno.EBUSY else f"{candidate}: {error.strerror}"
    return ""
