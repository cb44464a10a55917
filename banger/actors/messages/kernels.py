"""Commands to the owner of a kernel name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from banger.actors.messages.commands import Command, OwnerKey, OwnerKind
from banger.core.ports import KernelRequest, PushRequest


@dataclass(frozen=True, slots=True)
class KernelCommand(Command):
    """A command to the owner of one kernel name."""

    name: str

    @property
    def key(self) -> OwnerKey:
        """The kernel name's owner."""
        return OwnerKey(OwnerKind.KERNEL, self.name)


@dataclass(frozen=True, slots=True)
class PullKernel(KernelCommand):
    """Have the kernel under this name; answers the :class:`~banger.core.models.Kernel`. Imports travel as this too."""

    verb: ClassVar[str] = "kernel.pull"
    request: KernelRequest
    refresh: bool = False
    owner_uid: int = 0


@dataclass(frozen=True, slots=True)
class PushKernel(KernelCommand):
    """Upload the kernel; answers ``{"digest"}``."""

    verb: ClassVar[str] = "kernel.push"
    kernel_id: str
    push: PushRequest


@dataclass(frozen=True, slots=True)
class DeleteKernel(KernelCommand):
    """Delete the kernel with this name (or, for one that lost its name, this id); ``force`` as for images."""

    verb: ClassVar[str] = "kernel.delete"
    makes_room: ClassVar[bool] = True
    kernel_id: str
    force: bool = False
