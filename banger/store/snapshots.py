"""The table of snapshots."""

from __future__ import annotations

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Snapshot
from banger.store.database import Database
from banger.store.leases import LeaseTable, directory_key
from banger.store.table import Table


class SnapshotTable(Table[Snapshot]):
    """Rows of snapshots."""

    def __init__(self, database: Database, leases: LeaseTable) -> None:
        super().__init__(database, Snapshot, "snapshots", "snapshot", nullable=())
        self._leases = leases

    def publish(self, new: Snapshot) -> None:
        """Give ``new`` its name. Raises ``already_exists``: a snapshot never takes the place of another."""
        self.insert(new)

    def delete(self, object_id: str) -> bool:
        """Remove a row. Raises ``conflict`` while somebody holds its directory, to make a VM from it."""
        deleted = False

        def take_away() -> None:
            nonlocal deleted
            deleted = super(SnapshotTable, self).delete(object_id)

        if self._leases.unless_held(directory_key(object_id), take_away):
            return deleted
        snapshot = self.get(object_id)
        name = snapshot.name if snapshot else object_id
        raise BangerError(
            ErrorKind.CONFLICT,
            f'snapshot "{name}" is in use',
            subject=name,
            cause="a VM is being made from it now",
            hint="wait for that: banger op list",
        )

    def using_image(self, image_id: str) -> list[Snapshot]:
        """Snapshots of VMs of this image."""
        return self._select("image_id = ? ORDER BY name", image_id)

    def using_kernel(self, kernel_id: str) -> list[Snapshot]:
        """Snapshots of VMs with this kernel."""
        return self._select("kernel_id = ? ORDER BY name", kernel_id)
