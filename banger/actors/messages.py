"""What travels between the supervisor and the owners: commands (imperative) and facts (past tense).

All are frozen, because pykka passes messages by reference. Two equal commands are the same wish: while the
first is in flight the second joins it, unless the command says ``joinable = False``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from banger.core.listener import Listener
from banger.core.models import NO_SIZES, DefaultSizes, ProcessIdentity, VmSpec
from banger.core.operation import Operation
from banger.core.ports import ImageRequest, KernelRequest, PushRequest


class OwnerKind(StrEnum):
    """Kinds of owners."""

    IMAGE = "image"
    KERNEL = "kernel"
    VM = "vm"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class OwnerKey:
    """Who owns what: one actor for each key. ``name`` is an image's or kernel's name, or a VM's id."""

    kind: OwnerKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True)
class Command:
    """Something an owner is asked to do."""

    verb: ClassVar[str] = ""
    joinable: ClassVar[bool] = True
    #: Housekeeping: not worth a log line when it finds nothing to do, and never worth waiting for a busy owner.
    background: ClassVar[bool] = False

    @property
    def key(self) -> OwnerKey:
        """The owner that does it."""
        raise NotImplementedError

    @property
    def subject(self) -> str:
        """The name that people know it by."""
        return self.key.name

    @property
    def overtakes(self) -> bool:
        """True if what waits for a guest before it is to wait no longer: its end is what this is about."""
        return False

    @property
    def yields(self) -> bool:
        """True if it is to be refused, not queued, while its owner has other work."""
        return False


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
    image_id: str
    force: bool = False


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
    kernel_id: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class VmCommand(Command):
    """A command to the owner of one VM; answers the :class:`~banger.core.models.Vm` unless it says otherwise."""

    vm_id: str
    vm_name: str

    @property
    def key(self) -> OwnerKey:
        """The VM's owner."""
        return OwnerKey(OwnerKind.VM, self.vm_id)

    @property
    def subject(self) -> str:
        """The VM's name."""
        return self.vm_name


@dataclass(frozen=True, slots=True)
class CreateVm(VmCommand):
    """Make a VM from its spec; with ``start``, start it too, and leave nothing behind if that fails.

    ``attended``: a session of this daemon holds it, which began before this was wished.
    """

    verb: ClassVar[str] = "vm.create"
    joinable: ClassVar[bool] = False
    spec: VmSpec
    owner_uid: int = 0
    start: bool = False
    attended: bool = False

    def __hash__(self) -> int:
        return hash(self.vm_id)  # the spec's labels are a mapping


@dataclass(frozen=True, slots=True)
class StartVm(VmCommand):
    """Start it; one that runs is left alone. ``again``: by banger itself, and only if that is still due."""

    verb: ClassVar[str] = "vm.start"
    again: bool = False


@dataclass(frozen=True, slots=True)
class RestartVm(VmCommand):
    """Stop it as :class:`StopVm` does, if it runs, and start it: nothing comes between the two."""

    verb: ClassVar[str] = "vm.restart"
    timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class StopVm(VmCommand):
    """Ask the guest to power off, wait ``timeout_s``, then kill."""

    verb: ClassVar[str] = "vm.stop"
    timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class KillVm(VmCommand):
    """End it at once."""

    verb: ClassVar[str] = "vm.kill"

    @property
    def overtakes(self) -> bool:
        """It ends what a stop waits for, and what a start does."""
        return True


@dataclass(frozen=True, slots=True)
class PauseVm(VmCommand):
    """Stop its CPUs where they are. ``by`` is ``user`` or ``guard``."""

    verb: ClassVar[str] = "vm.pause"
    by: str = "user"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ResumeVm(VmCommand):
    """Let a paused one go on. By ``guard``: only if it is still the guard that paused it."""

    verb: ClassVar[str] = "vm.resume"
    by: str = "user"


@dataclass(frozen=True, slots=True)
class GrowVm(VmCommand):
    """Make the disk of a stopped one larger: ``disk_mib`` is the new size."""

    verb: ClassVar[str] = "vm.grow"
    disk_mib: int


@dataclass(frozen=True, slots=True)
class DeleteVm(VmCommand):
    """Remove it and its disk; with ``force`` also while it runs.

    Its home disk goes too only if ``keep_home`` is false, which nobody but a user may wish. ``lost``: its guest has not
    answered any more, so it may be ending just now, and how is worth to know.
    """

    verb: ClassVar[str] = "vm.delete"
    force: bool = False
    keep_home: bool = True
    lost: bool = False

    @property
    def overtakes(self) -> bool:
        """With ``force`` it kills."""
        return self.force


@dataclass(frozen=True, slots=True)
class SettleVm(VmCommand):
    """Make row, ledger and host agree: adopt what lives, finish or undo what was half done.

    ``exited`` names a process that is known to have ended. Without it the
    command is refused while the owner is busy: whoever works on the VM leaves it settled.
    """

    verb: ClassVar[str] = "vm.settle"
    background: ClassVar[bool] = True
    exited: ProcessIdentity | None = None

    @property
    def yields(self) -> bool:
        """A routine look yields; news of an exit must be heard."""
        return self.exited is None


@dataclass(frozen=True, slots=True)
class Prune(Command):
    """Remove content that nothing needs; answers a ``PruneReport``.

    Images or kernels (``nouns``) without a name that no VM uses; with ``unused`` also named ones that no VM uses;
    and registry blobs that no image was made from lately.
    """

    verb: ClassVar[str] = "system.prune"
    nouns: tuple[str, ...] = ("image", "kernel")
    unused: bool = False
    dry_run: bool = False

    @property
    def key(self) -> OwnerKey:
        """There is one host."""
        return OwnerKey(OwnerKind.HOST, "host")


@dataclass(frozen=True, slots=True)
class Reconcile(Command):
    """Settle every VM and collect what belongs to nobody; answers a ``ReconcileReport``.

    ``at_start``: nothing is being built, so staging is swept too. ``dry_run``: only tell what would be done.
    ``fix``: take down what is nobody's however young it is.
    """

    verb: ClassVar[str] = "system.reconcile"
    background: ClassVar[bool] = True
    at_start: bool = False
    dry_run: bool = False
    fix: bool = False

    @property
    def key(self) -> OwnerKey:
        """There is one host."""
        return OwnerKey(OwnerKind.HOST, "host")


# -- to the supervisor -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """A command and who waits for it."""

    command: Command
    listener: Listener


@dataclass(frozen=True, slots=True)
class CommandFinished:
    """An owner is done with one command."""

    key: OwnerKey
    generation: int
    operation_id: str


@dataclass(frozen=True, slots=True)
class OwnerTerminated:
    """An owner's thread ended; ``error`` tells a crash from an orderly stop."""

    key: OwnerKey
    generation: int
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Respawn:
    """The backoff of a crashed owner is over."""

    key: OwnerKey


@dataclass(frozen=True, slots=True)
class BeginShutdown:
    """Refuse what is new and cancel what runs."""


# -- to an owner -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Perform:
    """Do a command as this operation."""

    command: Command
    operation: Operation
