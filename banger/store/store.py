"""All tables of one database, in one object."""

from __future__ import annotations

from pathlib import Path

from banger.core.models import Image, Kernel
from banger.store.artifacts import ArtifactTable
from banger.store.database import Database
from banger.store.leases import LeaseTable
from banger.store.vms import HandleTable, VmTable


class Store:
    """What banger remembers. Safe to use from every thread."""

    def __init__(self, path: Path) -> None:
        """Open, create or migrate the database at ``path``; for its one daemon."""
        self.database = Database(path)
        self.images: ArtifactTable[Image] = ArtifactTable(self.database, Image, "images", "image")
        self.kernels: ArtifactTable[Kernel] = ArtifactTable(self.database, Kernel, "kernels", "kernel")
        self.vms = VmTable(self.database)
        self.handles = HandleTable(self.database)
        self.leases = LeaseTable(self.database)
        self.leases.clear()  # whoever held them is gone: there is one daemon to a store

    def close(self) -> None:
        """Close the database; idempotent."""
        self.database.close()
