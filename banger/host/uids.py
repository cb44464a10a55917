"""Users for VMMs: each VM that runs has one of its own, which nobody else on the host is.

Which VM has which is in the ledger, from before its VMM is started until that is gone. A VM's own place in the range is
where the search begins, so that it mostly gets the same one, and two installations of one host mostly different ones.
"""

from __future__ import annotations

import grp
import os
import pwd
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Handle, VmLedger

KIND = "uid"
#: Ranges that others hand out (subuid(5), subgid(5)), and those that exist in this user namespace.
_GIVEN_AWAY = (Path("/etc/subuid"), Path("/etc/subgid"))
_MAPS = (Path("/proc/self/uid_map"), Path("/proc/self/gid_map"))


class VmmUids:
    """Hands out uids of one range, each as a group of the same number too. Thread-safe."""

    def __init__(self, span: range, installation: str, held: Callable[[], Collection[int]]) -> None:
        """Nothing is taken yet.

        Args:
            span: of which they are; if it is empty, VMMs have no users of their own.
            installation: mixed into each VM's own place.
            held: all that VMs of this installation have, by the ledger.
        """
        self._span = span
        self._installation = installation
        self._held = held
        self._lock = threading.Lock()

    def take(self, vm_id: str, ledger: VmLedger) -> int:
        """The VM's user from now on, written down; 0 if it gets none. Idempotent.

        Raises:
            BangerError: ``exhausted`` if there is no free one.
        """
        if held := held_by(ledger):
            return held
        if not self._span:
            return 0
        with self._lock:
            uid = self._free(vm_id)
            ledger.intend(KIND, str(uid))
        return uid

    def _free(self, vm_id: str) -> int:
        taken = {*self._held(), *_users_of_processes()}
        given_away = list(_ranges(_GIVEN_AWAY, first=1, separator=":"))
        existing = [list(_ranges((one,), first=0, separator=None)) for one in _MAPS]
        for uid in self._from_own_place(vm_id):
            if uid in taken or any(uid in one for one in given_away) or _is_somebody(uid):
                continue
            if all(any(uid in one for one in ranges) for ranges in existing):
                return uid
        span = f"{self._span.start}-{self._span.stop - 1}"
        raise BangerError(
            ErrorKind.EXHAUSTED, f"no uid of {span} is free for a VMM", subject=span,
            cause="they are in use, in /etc/passwd or /etc/subuid, or not there in this container",
            hint="set vmm.jail_uids to a range that nobody uses",
        )  # fmt: skip

    def _from_own_place(self, vm_id: str) -> Iterator[int]:
        digest = sha256(f"{self._installation}/{vm_id}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") % len(self._span)
        yield from self._span[place:]
        yield from self._span[:place]


def all_held(handles: Iterable[Handle]) -> set[int]:
    """Every user that a VM has."""
    return {int(handle.key) for handle in handles if handle.kind == KIND}


def held_by(ledger: VmLedger) -> int:
    """The user that a VM's VMM has; 0 for none."""
    return next((int(handle.key) for handle in ledger.of(KIND)), 0)


def _is_somebody(uid: int) -> bool:
    """True if a user or a group of that number has a name, wherever accounts come from (nsswitch.conf(5))."""
    for known in (pwd.getpwuid, grp.getgrgid):
        with suppress(KeyError):
            known(uid)
            return True
    return False


def _users_of_processes() -> set[int]:
    """Whoever runs anything now: another installation's VMM, or one that was forgotten."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found.add(entry.stat().st_uid)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _ranges(files: Collection[Path], first: int, separator: str | None) -> Iterator[range]:
    """Lines with a beginning in column ``first``, and a length in the last one."""
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            fields = line.split(separator)
            if len(fields) == 3 and fields[first].isdigit() and fields[2].isdigit():
                start = int(fields[first])
                yield range(start, start + int(fields[2]))
