"""What the owners of images and of kernels share: publishing under a name, replacing, deleting."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from banger.actors.base import OwnerActor
from banger.actors.building import building
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel, Snapshot
from banger.core.operation import Operation
from banger.core.templates import Template
from banger.host import publish
from banger.store.artifacts import ArtifactTable
from banger.store.leases import directory_key
from banger.store.users import Users

T = TypeVar("T", bound=Image | Kernel)
Published = TypeVar("Published", bound=Image | Kernel | Snapshot | Template)


class Publishing(Protocol[Published]):
    """The table of what is published under a name."""

    def publish(self, new: Published) -> Published | None:
        """Write the row; the former holder of the name, if it was taken from one."""
        ...

    def delete(self, object_id: str) -> bool:
        """Remove a row."""
        ...


class ArtifactOwner(OwnerActor):
    """Owner of one name in a table of artefacts. The order of every step here is a promise, see ARCHITECTURE.md."""

    def building(self, what: str, operation: Operation) -> AbstractContextManager[Path]:
        """As :func:`banger.actors.building.building`."""
        return building(self.services, what, operation)

    def publish(
        self,
        table: Publishing[Published],
        new: Published,
        staged: Path,
        directory_of: Callable[[str], Path],
        operation: Operation,
    ) -> Published | None:
        """Sync, rename into place, then the row: a reader sees the whole thing or nothing.

        Returns the former holder of the name, if it was taken from one.
        """
        final = directory_of(new.id)
        crashpoint("artifact.publish:staged")
        self.services.store.leases.take(operation.id, [directory_key(new.id)])
        publish.publish(staged, final)
        crashpoint("artifact.publish:renamed")
        try:
            old = table.publish(new)
        except BaseException:
            publish.discard(final, self.services.layout)
            raise
        crashpoint("artifact.publish:row-written")
        return old

    def publish_instead(
        self,
        table: ArtifactTable[T],
        new: T,
        staged: Path,
        directory_of: Callable[[str], Path],
        users: Callable[[str], Users],
        operation: Operation,
    ) -> None:
        """Publish; the former holder of the name keeps its content while anything uses it."""
        old = self.publish(table, new, staged, directory_of, operation)
        if old is not None and not users(old.id):
            self.remove(table, old, directory_of)

    def remove(self, table: Publishing[Published], value: Published, directory_of: Callable[[str], Path]) -> None:
        """The reverse of publishing: the row first, then the files."""
        crashpoint("artifact.remove:begun")
        table.delete(value.id)
        crashpoint("artifact.remove:row-gone")
        publish.discard(directory_of(value.id), self.services.layout)
        crashpoint("artifact.remove:files-gone")

    def delete(
        self,
        table: ArtifactTable[T],
        value: T | None,
        noun: str,
        users: Callable[[str], Users],
        directory_of: Callable[[str], Path],
        operation: Operation,
        *,
        force: bool,
    ) -> dict[str, Any]:
        """Delete unless something uses it; what is gone already is an error of kind ``not_found``.

        With ``force`` a used one loses its name, and its content goes with its last user.
        """
        if value is None:
            raise BangerError(
                ErrorKind.NOT_FOUND,
                f'{noun} "{self.key.name}" not found',
                subject=self.key.name,
                hint=f"banger {noun} list",
            )
        using = users(value.id)
        if using and force:
            table.update(replace(value, name=""))
            operation.note(f"{value.name} stays without a name until {using.words} are gone")
            return {"id": value.id, "name": value.name}
        if using:
            raise BangerError(
                ErrorKind.CONFLICT,
                f'{noun} "{value.name or value.id}" is in use',
                subject=value.name or value.id,
                cause=f"by {using.words}",
                hint=using.deleting,
            )
        with operation.step(f"delete {noun}"):
            self.remove(table, value, directory_of)
        return {"id": value.id, "name": value.name}
