"""The ledger of what every VM holds on the host: recorded in a file before it is created, then in the store.

Each VM has a journal file beside its disk and rows in the store. The file is written first, so it is never behind: a
crash between the two, a store that was put back from a backup, or a row that was lost all leave a file that
:meth:`Ledger.recover` brings the rows up to date from. A file that is damaged is believed as far as it checks, and
the rows stand for the rest.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Protocol

from banger.core import codec
from banger.core.models import Vm
from banger.core.ports import Handle
from banger.host.journal import FULL, Journal, JournalState, put, strike
from banger.layout import Layout


class HandleRows(Protocol):
    """The store's table of handles."""

    def put(self, handle: Handle) -> None:
        """Insert or replace."""
        ...

    def strike(self, vm_id: str, kind: str, key: str | None = None) -> None:
        """Delete one key, or all of a kind."""
        ...

    def of(self, vm_id: str, kind: str | None = None) -> list[Handle]:
        """What a VM holds."""
        ...

    def all(self, kind: str | None = None) -> list[Handle]:
        """What all VMs hold, or of one kind alone."""
        ...


class VmHandles:
    """One VM's part of the ledger; implements :class:`banger.core.ports.VmLedger`."""

    def __init__(self, rows: HandleRows, journal: Journal, vm_id: str) -> None:
        self._rows = rows
        self._journal = journal
        self._vm_id = vm_id

    def intend(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down what is about to be made."""
        self._put(Handle(self._vm_id, kind, key, "intended", detail or {}))

    def activate(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down that it exists now, and what identifies it."""
        self._put(Handle(self._vm_id, kind, key, "active", detail or {}))

    def strike(self, kind: str, key: str | None = None) -> None:
        """Cross out what is gone: one key, or all of a kind. What was never written costs nothing."""
        if not any(key in (None, handle.key) for handle in self.of(kind)):
            return
        try:
            self._journal.append(strike(kind, key))
        except OSError as error:
            # Without its directory nothing is behind. Without room the file is ahead, which costs one more cleanup:
            # deleting what fills the disk must not need room.
            if error.errno not in (errno.ENOENT, *FULL):
                raise
        self._rows.strike(self._vm_id, kind, key)

    def of(self, kind: str | None = None) -> list[Handle]:
        """What the VM holds."""
        return self._rows.of(self._vm_id, kind)

    def _put(self, handle: Handle) -> None:
        with self._journal.failures_told():
            self._journal.append(put(handle))
        self._rows.put(handle)


class Ledger:
    """All VMs' handles. Thread-safe as far as each VM's part is written by its owner alone."""

    def __init__(self, rows: HandleRows, layout: Layout) -> None:
        self._rows = rows
        self._layout = layout

    def of(self, vm_id: str) -> VmHandles:
        """One VM's part. Its directory must be there before anything is written."""
        return VmHandles(self._rows, self._journal(vm_id), vm_id)

    def all(self, kind: str | None = None) -> list[Handle]:
        """What all VMs hold, or of one kind alone."""
        return self._rows.all(kind)

    def begin(self, vm: Vm) -> None:
        """Begin a VM's file anew with its present record: at its creation, at each start and when it is down.

        Raises:
            BangerError: ``exhausted``; ``not_found`` if the VM's directory is gone; ``unavailable``.
        """
        journal = self._journal(vm.id)
        with journal.failures_told():
            journal.begin(codec.to_plain(vm), self._rows.of(vm.id))

    def record(self, vm: Vm) -> None:
        """Add a VM's present record to its file: once it runs, with what is needed to reach it.

        Raises:
            BangerError: as :meth:`begin`.
        """
        journal = self._journal(vm.id)
        with journal.failures_told():
            journal.append({"op": "vm", "vm": codec.to_plain(vm)})

    def recorded(self, vm_id: str) -> JournalState:
        """What a VM's file says, for a VM that the store does not know."""
        return self._journal(vm_id).read(vm_id)

    def recover(self, vm_id: str) -> bool:
        """Bring the rows of a VM up to date from its file, which may be ahead; True if that changed any.

        What only the rows know stays: the file may have been damaged, and cleaning up twice does no harm. Nor does a
        mere intention in the file replace what the rows know to exist.
        """
        rows = {(handle.kind, handle.key): handle for handle in self._rows.of(vm_id)}
        recorded = self.recorded(vm_id).handles.items()
        ahead = [one for key, one in recorded if key not in rows or (one.state == "active" and one != rows[key])]
        for handle in ahead:
            self._rows.put(handle)
        return bool(ahead)

    def _journal(self, vm_id: str) -> Journal:
        return Journal(self._layout.vm_dir(vm_id) / "handles.journal")
