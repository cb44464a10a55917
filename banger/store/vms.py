"""The tables of VMs and of what they hold on the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from banger.core import clock
from banger.core.models import Vm
from banger.store.database import Database
from banger.store.table import Table


class VmTable(Table[Vm]):
    """Rows of VMs."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, Vm, "vms", "vm", nullable=("image_id", "kernel_id"))

    def using_image(self, image_id: str) -> list[Vm]:
        """VMs that refer to an image."""
        return self._select("image_id = ? ORDER BY name", image_id)

    def using_kernel(self, kernel_id: str) -> list[Vm]:
        """VMs that refer to a kernel."""
        return self._select("kernel_id = ? ORDER BY name", kernel_id)


@dataclass(frozen=True, slots=True)
class Handle:
    """One thing a VM holds on the host.

    Attributes:
        kind: ``process``, ``run_dir``, ``port``, …
        key: predictable before the thing is made, so that a crash at any instruction leaves something findable.
        state: ``intended`` before it is made, ``active`` after, ``releasing`` while it is taken down.
        detail: what was observed once it existed (a pid and its start time, say).
    """

    vm_id: str
    kind: str
    key: str
    state: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class HandleTable:
    """The ledger. Written before a thing is made and after it is gone, never the other way round."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def intend(self, vm_id: str, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down what is about to be made. Idempotent."""
        self._put(Handle(vm_id, kind, key, "intended", detail or {}))

    def activate(self, vm_id: str, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down that it exists now, and what identifies it."""
        self._put(Handle(vm_id, kind, key, "active", detail or {}))

    def strike(self, vm_id: str, kind: str, key: str | None = None) -> None:
        """Cross out what is gone: one key, or all of a kind."""
        if key is None:
            self._database.execute("DELETE FROM handles WHERE vm_id = ? AND kind = ?", (vm_id, kind))
        else:
            self._database.execute("DELETE FROM handles WHERE vm_id = ? AND kind = ? AND key = ?", (vm_id, kind, key))

    def of(self, vm_id: str, kind: str | None = None) -> list[Handle]:
        """What a VM holds."""
        rows = self._database.query("SELECT * FROM handles WHERE vm_id = ? ORDER BY kind, key", (vm_id,))
        return [_handle(row) for row in rows if kind in (None, row["kind"])]

    def all(self) -> list[Handle]:
        """What all VMs hold."""
        return [_handle(row) for row in self._database.query("SELECT * FROM handles ORDER BY vm_id, kind, key")]

    def _put(self, handle: Handle) -> None:
        self._database.execute(
            """INSERT INTO handles (vm_id, kind, key, state, detail, created_at) VALUES (?, ?, ?, ?, ?, ?)
               ON CONFLICT (vm_id, kind, key) DO UPDATE SET state = excluded.state, detail = excluded.detail""",
            (
                handle.vm_id, handle.kind, handle.key, handle.state, json.dumps(handle.detail),
                clock.rfc3339(clock.now()),
            ),
        )  # fmt: skip


def _handle(row: Mapping[str, Any]) -> Handle:
    return Handle(row["vm_id"], row["kind"], row["key"], row["state"], json.loads(row["detail"]))
