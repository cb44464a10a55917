"""Commands to the owner of an image name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from banger.actors.messages.commands import Command, OwnerKey, OwnerKind
from banger.core.ports import ImageRequest, PushRequest
from banger.core.wire.sizes import NO_SIZES, DefaultSizes


@dataclass(frozen=True, slots=True)
class ImageCommand(Command):
    """A command to the owner of one image name."""

    name: str

    @property
    def key(self) -> OwnerKey:
        """The image name's owner."""
        return OwnerKey(OwnerKind.IMAGE, self.name)


@dataclass(frozen=True, slots=True)
class PullImage(ImageCommand):
    """Have the image under this name; answers the :class:`~banger.core.models.Image`.

    With ``refresh`` the reference is resolved anew, so that a tag that moved is seen; without it an image that is
    there is good enough.
    """

    verb: ClassVar[str] = "image.pull"
    request: ImageRequest
    refresh: bool = False
    owner_uid: int = 0


@dataclass(frozen=True, slots=True)
class RegisterImage(ImageCommand):
    """Take the user's own ext4 file as an image, where it is; it is validated and never written or deleted."""

    verb: ClassVar[str] = "image.register"
    rootfs_path: str
    kernel: str = ""
    seed_path: str = ""
    owner_uid: int = 0


@dataclass(frozen=True, slots=True)
class PromoteImage(ImageCommand):
    """Make an unmanaged image a managed one: copied into the store, with a work seed."""

    verb: ClassVar[str] = "image.promote"


@dataclass(frozen=True, slots=True)
class TagImage(ImageCommand):
    """Give the content of another image this name too."""

    verb: ClassVar[str] = "image.tag"
    source_id: str
    owner_uid: int = 0


@dataclass(frozen=True, slots=True)
class CommitVm(ImageCommand):
    """Make an image of this name from the disk of a VM that is stopped."""

    verb: ClassVar[str] = "image.commit"
    vm_id: str
    keep: tuple[str, ...] = ()
    owner_uid: int = 0


@dataclass(frozen=True, slots=True)
class ExportImage(ImageCommand):
    """Write the image to a file; through its owner, so that it is not deleted meanwhile.

    ``defaults`` are sizes that a bundle suggests; what is 0 there is the image's own.
    """

    verb: ClassVar[str] = "image.export"
    image_id: str
    target: str
    form: str
    defaults: DefaultSizes = NO_SIZES


@dataclass(frozen=True, slots=True)
class PushImage(ImageCommand):
    """Upload the image; answers ``{"digest"}``."""

    verb: ClassVar[str] = "image.push"
    image_id: str
    push: PushRequest
    defaults: DefaultSizes = NO_SIZES


@dataclass(frozen=True, slots=True)
class DeleteImage(ImageCommand):
    """Delete the image with this name (or, for one that lost its name, this id).

    With ``force`` the name goes even while VMs use the content, which then goes with the last of them.
    """

    verb: ClassVar[str] = "image.delete"
    makes_room: ClassVar[bool] = True
    image_id: str
    force: bool = False
