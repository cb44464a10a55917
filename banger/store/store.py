"""All tables of one database, in one object."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from banger.core.models import Image, Kernel, Snapshot, Vm
from banger.store.artifacts import ArtifactTable
from banger.store.database import Database
from banger.store.leases import LeaseTable
from banger.store.snapshots import SnapshotTable
from banger.store.templates import TemplateTable, WishTable
from banger.store.users import Users
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
        self.snapshots = SnapshotTable(self.database, self.leases)
        self.templates = TemplateTable(self.database, self.leases)
        self.wishes = WishTable(self.database)
        self.leases.clear()  # whoever held them is gone: there is one daemon to a store

    def users_of_image(self, image_id: str) -> Users:
        """What refers to an image."""
        return _users(self.vms.using_image(image_id), self.snapshots.using_image(image_id))

    def users_of_kernel(self, kernel_id: str) -> Users:
        """What refers to a kernel."""
        return _users(self.vms.using_kernel(kernel_id), self.snapshots.using_kernel(kernel_id))

    def close(self) -> None:
        """Close the database; idempotent."""
        self.database.close()


def _users(vms: Iterable[Vm], snapshots: Iterable[Snapshot]) -> Users:
    return Users(tuple(vm.name for vm in vms), tuple(snapshot.name for snapshot in snapshots))
