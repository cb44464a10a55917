"""What the owners need from the outside world, as they see it. Adapters implement these; nobody inherits them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.core.models import (
    NO_SIZES,
    DefaultSizes,
    GuestAccess,
    Image,
    ImageConfig,
    Kernel,
    PortForward,
    ProcessIdentity,
)
from banger.core.operation import Operation


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What a pull was asked for.

    Attributes:
        reference: an OCI reference, or a catalog entry's own source such as ``mmdebstrap:bookworm``.
        platform: ``os/architecture[/variant]``; empty means this host's.
        plain_http: talk http, not https (loopback registries do so by themselves).
        size_bytes: wanted size of the file system; 0 lets the builder choose.
    """

    reference: str
    platform: str = ""
    plain_http: bool = False
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class KernelReference:
    """The kernel that an image was used with: its name there, the digest of its content, and where it can be had.

    Any may be empty. ``source`` is what :class:`KernelRequest` takes, but never a file of some host.
    """

    name: str = ""
    digest: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """Exactly one thing to build: the same digest is the same content.

    ``token`` is the resolver's own, handed back to :meth:`ImageSource.build` and opaque to everybody else.
    """

    source: str
    digest: str
    platform: str
    config: ImageConfig
    token: object = None
    kernel: KernelReference = KernelReference()
    defaults: DefaultSizes = NO_SIZES


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """What :meth:`ImageSource.build` left in the staging directory."""

    rootfs: Path
    size_bytes: int
    disk_bytes: int
    config: ImageConfig
    digest: str


class Leases(Protocol):
    """Keep what is being worked with from being collected."""

    def take(self, holder: str, keys: Iterable[str]) -> None:
        """Hold ``keys`` for ``holder``, an operation's id, until it is over or shows no life for too long."""
        ...


class ImageSource(Protocol):
    """A kind of place that images come from."""

    def handles(self, request: ImageRequest) -> bool:
        """True if this source understands the request's reference."""
        ...

    def resolve(self, request: ImageRequest, operation: Operation) -> ResolvedImage:
        """Find out what the reference means now; cheap, no large transfer."""
        ...

    def build(self, resolved: ResolvedImage, staging: Path, operation: Operation) -> BuiltImage:
        """Make ``staging/rootfs.ext4``, e2fsck-clean and synced; touches nothing else but shared blobs."""
        ...


@dataclass(frozen=True, slots=True)
class RootfsFacts:
    """What was found out about a root file system. ``digest`` is of its content, ``sha256:…``."""

    size_bytes: int
    disk_bytes: int
    digest: str


class Workshop(Protocol):
    """What can be done with root file systems that are here already. Nothing is ever mounted on the host."""

    def validate(self, rootfs: Path, operation: Operation) -> RootfsFacts:
        """Prove that it is a clean ext4 that nobody has attached. Raises ``invalid`` or ``conflict``. Never writes."""
        ...

    def copy(self, source: Path, target: Path, operation: Operation) -> None:
        """Copy a file, sharing blocks where the file system can and keeping holes."""
        ...

    def seed(self, rootfs: Path, target: Path, operation: Operation) -> None:
        """Make a work seed: a small ext4 with the content of the image's ``/root``."""
        ...

    def commit(
        self, rootfs: Path, vm_dir: Path, target: Path, keep: Sequence[str], operation: Operation
    ) -> RootfsFacts:
        """Merge a base and a stopped VM's writable layer into a new root file system.

        Host keys, machine id, authorized keys and shell history are left out but for the paths in ``keep``.
        """
        ...

    def export(self, image: Image, kernel: Kernel | None, target: Path, form: str, operation: Operation) -> None:
        """Write an image to a file: ``bundle``, or ``oci`` for an OCI image that other tools read.

        ``kernel`` is the one that the image names, if it is here.
        """
        ...

    def push(self, image: Image, kernel: Kernel | None, push: PushRequest, operation: Operation) -> str:
        """Upload an image as :meth:`export` writes it; the digest of its manifest."""
        ...

    def push_kernel(self, kernel: Kernel, kernel_dir: Path, push: PushRequest, operation: Operation) -> str:
        """Upload a kernel; the digest of its manifest."""
        ...


@dataclass(frozen=True, slots=True)
class PushRequest:
    """Where an upload goes. ``form`` is ``bundle`` or ``oci`` for an image, and has no meaning for a kernel."""

    reference: str
    form: str = "bundle"
    plain_http: bool = False


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """What a kernel pull or import was asked for. One of ``source`` and ``kernel_path`` is set.

    Attributes:
        source: a catalog entry's source such as ``apt:linux-image-cloud-amd64``.
        kernel_path, modules_path, initrd_path: local files of an import, already readable by the daemon.
    """

    source: str = ""
    kernel_path: str = ""
    modules_path: str = ""
    initrd_path: str = ""
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """What :meth:`KernelSource.build` left in the staging directory: ``vmlinuz``, ``modules.ext4``, ``initrd``."""

    version: str
    source: str
    digest: str
    platform: str
    format: str
    size_bytes: int
    has_modules: bool
    has_initrd: bool
    cmdline: str


class KernelSource(Protocol):
    """A kind of place that kernels come from."""

    def handles(self, request: KernelRequest) -> bool:
        """True if this source understands the request."""
        ...

    def build(self, request: KernelRequest, staging: Path, operation: Operation) -> BuiltKernel:
        """Fill ``staging``, synced."""
        ...


@dataclass(frozen=True, slots=True)
class Drive:
    """A block device of a VM. ``serial`` names it inside the guest (at most 20 letters and digits)."""

    path: Path
    serial: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class VmmConfig:
    """Everything a VMM driver needs to start one machine.

    Attributes:
        run_dir: private directory for sockets; paths in it stay under 108 bytes.
        cmdline: kernel arguments that the guest needs, without what the driver itself adds.
        forwards: loopback TCP forwards; every host port is already chosen.
        network: ``user`` or ``none``; ``none`` still carries ``forwards``.
    """

    vm_id: str
    name: str
    run_dir: Path
    kernel: Path
    initrd: Path
    cmdline: str
    cpus: int
    memory_mib: int
    drives: Sequence[Drive]
    forwards: Sequence[PortForward]
    network: str
    machine: str
    accelerator: str
    console_log: Path
    vmm_log: Path


class Storage(Protocol):
    """A storage driver: how a VM gets a disk of its own over a shared, read-only image."""

    name: str

    def create(self, vm_dir: Path, rootfs: Path, size_mib: int) -> None:
        """Make the VM's writable layer in ``vm_dir``. Idempotent. Raises ``exhausted`` when there is no room."""
        ...

    def drives(self, vm_dir: Path, rootfs: Path) -> Sequence[Drive]:
        """The block devices to attach, with the serials that the guest looks for."""
        ...

    def remove(self, vm_dir: Path) -> None:
        """Take the writable layer down; already gone is success."""
        ...


class Vmm(Protocol):
    """A VMM driver. Every method is safe to repeat; none holds state of its own about a VM."""

    name: str

    def accelerator(self) -> str:
        """``kvm`` if a guest was proven to run on it, else ``tcg``. The proof is made once and cached."""
        ...

    def launch(self, config: VmmConfig, on_spawn: Callable[[ProcessIdentity], None]) -> ProcessIdentity:
        """Start the process in its own session, and return once the machine runs.

        ``on_spawn`` is called as soon as the process exists, before anything can fail: it writes the handle down.
        Raises ``conflict`` if a forwarded port is taken, ``unavailable`` with the VMM's own words otherwise; then
        no process is left.
        """
        ...

    def find(self, marker: str) -> ProcessIdentity | None:
        """The process whose command line carries ``marker``: for a handle that was intended but never recorded."""
        ...

    def of_this_boot(self, identity: ProcessIdentity) -> bool:
        """False if the host rebooted since: then every runtime handle is void."""
        ...

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """True if this very process lives (boot id, pid, start time and command line agree)."""
        ...

    def power_down(self, identity: ProcessIdentity, run_dir: Path) -> None:
        """Ask the guest to power off by the VMM's own means (ACPI power button); returns at once."""
        ...

    def kill(self, identity: ProcessIdentity, timeout_s: float = 10.0) -> None:
        """End the process through its pidfd and wait until it is gone; already gone is success."""
        ...

    def wait_exit(self, identity: ProcessIdentity, timeout_s: float) -> bool:
        """Wait until the process is gone; False on timeout."""
        ...


class Guests(Protocol):
    """The channel into running guests, as the owners see it (the API uses more of it)."""

    def connect(self, access: GuestAccess, operation: Operation, timeout_s: float) -> None:
        """Connect, strictly checking the host key, and keep the connection. Raises ``timeout``."""
        ...

    def run(self, access: GuestAccess, command: str, timeout_s: float) -> tuple[int, bytes]:
        """Run one of banger's own commands in the guest; exit code and what it printed."""
        ...

    def disconnect(self, vm_id: str) -> None:
        """Drop the connection, if there is one."""
        ...


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """What differs per VM and travels in its own archive: nothing secret is in boot arguments."""

    hostname: str
    authorized_key: str
    host_key_seed: bytes
    init: str
    ssh_port: int
    env: Sequence[str]
    network: str
    files: Mapping[str, bytes]


class GuestBoot(Protocol):
    """Makes what the kernel boots into."""

    ssh_port: int

    def toolbox(self, kernel_dir: Path, kernel_id: str, operation: Operation) -> Path:
        """The toolbox initrd for a kernel, from the cache or made now."""
        ...

    def initrd(self, toolbox: Path, config: GuestConfig, target: Path) -> None:
        """Write ``target``: the toolbox with the per-VM archive joined to it. Mode 0600."""
        ...

    def cmdline(self) -> str:
        """The kernel arguments that the toolbox's init wants."""
        ...

    def poweroff_command(self) -> str:
        """What to run through :meth:`Guests.run` to have the guest power itself off in an orderly way."""
        ...
