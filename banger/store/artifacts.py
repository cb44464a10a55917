"""The tables of images and kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from banger.core.models import Image, Kernel
from banger.store.database import Database
from banger.store.table import Table

T = TypeVar("T", bound=Image | Kernel)


class ArtifactTable(Table[T]):
    """Named, immutable content that VMs refer to."""

    def __init__(self, database: Database, cls: type[T], table: str, noun: str) -> None:
        super().__init__(database, cls, table, noun, nullable=("name",))

    def by_digest(self, digest: str) -> T | None:
        """Any object with this content."""
        return self._one("digest = ? ORDER BY created_at LIMIT 1", digest)

    def nameless(self) -> list[T]:
        """Content that lost its name to a newer version."""
        return self._select("name IS NULL")

    def publish(self, new: T) -> T | None:
        """Give ``new`` its name, in one transaction: insert it, taking the name from its present holder.

        Returns the former holder, now nameless; VMs that use it keep it until they are gone.
        """
        with self._database.transaction():
            old = self.by_name(new.name)
            if old is not None:
                self.update(replace(old, name=""))
            self.insert(new)
        return old
