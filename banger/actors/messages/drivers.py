"""Commands to the owner of the releases of a VMM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from banger.actors.messages.commands import Command, OwnerKey, OwnerKind
from banger.core.ports import ReleaseRequest


@dataclass(frozen=True, slots=True)
class DriverCommand(Command):
    """A command to the owner of all releases of one VMM; ``name`` is its driver's."""

    name: str

    @property
    def key(self) -> OwnerKey:
        """The owner of what is installed of that VMM."""
        return OwnerKey(OwnerKind.DRIVER, self.name)


@dataclass(frozen=True, slots=True)
class InstallDriver(DriverCommand):
    """Have a release; answers the :class:`~banger.core.models.VmmRelease`. One that is there is good enough."""

    verb: ClassVar[str] = "driver.install"
    request: ReleaseRequest


@dataclass(frozen=True, slots=True)
class RemoveDriver(DriverCommand):
    """Remove a release that no VM runs on; ``version`` may be empty where there is only one."""

    verb: ClassVar[str] = "driver.remove"
    makes_room: ClassVar[bool] = True
    version: str = ""
