"""The tables of VMs and of their handles on the host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from banger.core import clock, lookup
from banger.core.models import Vm
from banger.core.ports import Handle
from banger.store.database import Database
from banger.store.table import Table


class VmTable(Table[Vm]):
    """Rows of VMs."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, Vm, "vms", "vm", nullable=("image_id", "kernel_id"))

    def of_users(self) -> list[Vm]:
        """Every VM but banger's own, which become templates."""
        return self._select("makes_template = '' ORDER BY created_at, id")

    def find(self, query: str) -> Vm:
        """As of every table, among those of users."""
        found = super().find(query)
        if found.makes_template:
            raise lookup.not_found(query, "vm", [])
        return found

    def using_image(self, image_id: str) -> list[Vm]:
        """VMs that refer to an image."""
        return self._select("image_id = ? ORDER BY name", image_id)

    def using_kernel(self, kernel_id: str) -> list[Vm]:
        """VMs that refer to a kernel."""
        return self._select("kernel_id = ? ORDER BY name", kernel_id)

    def from_snapshot(self, snapshot_id: str) -> list[Vm]:
        """VMs that began from a snapshot."""
        return self._select("origin_snapshot = ? ORDER BY name", snapshot_id)

    @contextmanager
    def kept_off(self, vmm: str, version: str) -> Iterator[list[Vm]]:
        """The VMs that run on this release of a VMM. None begins to while the block is being executed."""
        with self._database.transaction():
            yield self._select(
                "vmm = ? AND vmm_version = ? AND state NOT IN ('creating', 'stopped', 'deleting') ORDER BY name",
                vmm, version,
            )  # fmt: skip


class HandleTable:
    """Rows of the ledger; written through :class:`banger.host.ledger.Ledger`, which keeps the files ahead of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, handle: Handle) -> None:
        """Insert or replace."""
        self._database.execute(
            """INSERT INTO handles (vm_id, kind, key, state, detail, created_at) VALUES (?, ?, ?, ?, ?, ?)
               ON CONFLICT (vm_id, kind, key) DO UPDATE SET state = excluded.state, detail = excluded.detail""",
            (
                handle.vm_id, handle.kind, handle.key, handle.state, json.dumps(handle.detail),
                clock.rfc3339(clock.now()),
            ),
        )  # fmt: skip

    def strike(self, vm_id: str, kind: str, key: str | None = None) -> None:
        """Delete one key, or all of a kind."""
        if key is None:
            self._database.execute("DELETE FROM handles WHERE vm_id = ? AND kind = ?", (vm_id, kind))
        else:
            self._database.execute("DELETE FROM handles WHERE vm_id = ? AND kind = ? AND key = ?", (vm_id, kind, key))

    def of(self, vm_id: str, kind: str | None = None) -> list[Handle]:
        """What a VM holds."""
        rows = self._database.query("SELECT * FROM handles WHERE vm_id = ? ORDER BY kind, key", (vm_id,))
        return [_handle(row) for row in rows if kind in (None, row["kind"])]

    def all(self, kind: str | None = None) -> list[Handle]:
        """What all VMs hold, or of one kind alone: of a thousand VMs, all of it takes a tenth of a second."""
        rows = self._database.query(
            "SELECT * FROM handles WHERE kind = coalesce(?, kind) ORDER BY vm_id, kind, key", (kind,)
        )
        return [_handle(row) for row in rows]


def _handle(row: Mapping[str, Any]) -> Handle:
    return Handle(row["vm_id"], row["kind"], row["key"], row["state"], json.loads(row["detail"]))
