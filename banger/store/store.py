"""All tables of one database, in one object."""

from __future__ import annotations

from pathlib import Path

from banger.core.models import Image, Kernel
from banger.store.artifacts import ArtifactTable
from banger.store.database import Database
from banger.store.vms import HandleTable, VmTable


class Store:
    """What banger remembers. Safe to use from every thread."""

    def __init__(self, path: Path) -> None:
        """Open, create or migrate the database at ``path``."""
        self.database = Database(path)
        self.images: ArtifactTable[Image] = ArtifactTable(self.database, Image, "images", "image")
        self.kernels: ArtifactTable[Kernel] = ArtifactTable(self.database, Kernel, "kernels", "kernel")
        self.vms = VmTable(self.database)
        self.handles = HandleTable(self.database)

    def close(self) -> None:
        """Close the database; idempotent."""
        self.database.close()
