"""The objects that banger stores and shows: images, kernels, VMs, snapshots.

Field names are those of the JSON (with units). All are frozen: a change is a new value, written to the store first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from banger.core.progress import StepTiming
from banger.core.wire.port_forward import PortForward
from banger.core.wire.sizes import NO_SIZES, DefaultSizes
from banger.core.wire.vm_spec import VmSpec


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The part of an OCI image configuration that a VM may use. Data only: never a path or an argument of the host."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system that VMs boot from: ``images/ID/rootfs.ext4``, read-only.

    Attributes:
        name: unique; empty for content that a moved tag left behind and that VMs still use.
        source: where it came from: ``docker.io/library/debian:12``, ``mmdebstrap:bookworm``.
        digest: ``sha256:…`` of the platform's manifest (or of what was bootstrapped), ``uuid:…`` of the file system for
            a registered file; equal content, equal digest.
        platform: ``linux/amd64``.
        size_bytes: apparent size of the file system.
        disk_bytes: what it occupies.
        managed: False for a registered image, whose file is the user's own: never written, never deleted.
        rootfs_path: where an unmanaged image's file is; empty for a managed one.
        kernel: name of the kernel that its VMs boot unless they say otherwise; empty for the configured default.
        kernel_digest: of that kernel's content, where it is known; it counts for more than the name.
        kernel_source: where that kernel can be had: ``oci:…``, ``apt:…``, ``https://…#sha256=…``; may be empty.
        defaults: sizes for its VMs.
        has_seed: ``seed.ext4`` is beside the root file system, from which home disks are made.
    """

    id: str
    name: str
    source: str
    digest: str
    platform: str
    size_bytes: int
    disk_bytes: int
    created_at: datetime
    owner_uid: int = 0
    managed: bool = True
    config: ImageConfig = ImageConfig()
    rootfs_path: str = ""
    kernel: str = ""
    has_seed: bool = False
    kernel_digest: str = ""
    kernel_source: str = ""
    defaults: DefaultSizes = NO_SIZES


@dataclass(frozen=True, slots=True)
class Kernel:
    """A guest kernel: ``kernels/ID/`` holds ``vmlinuz``, and ``modules.ext4`` and ``initrd`` if it has them.

    Attributes:
        version: the release, as ``uname -r`` will say, or empty when the file does not tell.
        format: ``bzimage`` or ``elf``.
        has_modules: ``modules.ext4`` is there, a file system with the content of ``lib/modules/VERSION``.
        cmdline: arguments this kernel wants besides banger's own.
    """

    id: str
    name: str
    version: str
    source: str
    digest: str
    platform: str
    format: str
    size_bytes: int
    created_at: datetime
    owner_uid: int = 0
    has_modules: bool = False
    has_initrd: bool = False
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class VmmRelease:
    """A release of a VMM that banger has installed: ``drivers/NAME/VERSION/`` holds its programs.

    Attributes:
        name: of its driver.
        version: as its program tells it.
        architecture: that it is for, as ``uname -m`` says it.
        source: the file, directory or URL that it came from.
        digest: ``sha256:…`` of the archive; empty for a directory.
        sums: program to SHA-256, in hexadecimal digits.
        size_bytes: of its programs.
    """

    name: str
    version: str
    architecture: str
    source: str
    digest: str
    sums: Mapping[str, str]
    size_bytes: int
    created_at: datetime

    @property
    def id(self) -> str:
        """Like ``firecracker-1.12.1``."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True)
class VmmProgram:
    """A VMM that is on the host.

    Attributes:
        name: of its driver.
        version: as it tells itself.
        origin: ``installed`` by banger, where a ``setting`` says, in ``path``; ``host`` for what is always looked for
            there.
        path: of its program.
        is_default: new starts of VMs with that driver take it.
        jail_problem: why its jailer cannot start it; empty if it can, or if it needs none.
        support: whether its project still mends it, in words; empty where banger does not know.
        is_outdated: it surely does not.
        broken: why it cannot be used; empty if it can.
        source, digest, size_bytes, created_at: of the release, if banger installed it.
    """

    name: str
    version: str
    origin: str
    path: str = ""
    is_default: bool = False
    jail_problem: str = ""
    support: str = ""
    is_outdated: bool = False
    broken: str = ""
    source: str = ""
    digest: str = ""
    size_bytes: int = 0
    created_at: datetime | None = None


class VmState(StrEnum):
    """Where a VM stands; legal moves are in :mod:`banger.core.states`."""

    CREATING = "creating"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    FAILED = "failed"
    DELETING = "deleting"


class ExitReason(StrEnum):
    """Why a VM is not running any more."""

    NONE = ""
    REQUESTED = "requested"
    GUEST_POWEROFF = "guest_poweroff"
    GUEST_REBOOT = "guest_reboot"
    GUEST_PANIC = "guest_panic"
    VMM_CRASH = "vmm_crash"
    KILLED = "killed"
    OUT_OF_MEMORY = "out_of_memory"
    KVM_FAILURE = "kvm_failure"
    HOST_REBOOT = "host_reboot"


@dataclass(frozen=True, slots=True)
class Restarts:
    """Starts of a VM by banger itself, since somebody last started it.

    Attributes:
        count: how many its restart policy has wished; reboots of the guest are not among them.
        tries: how many in a row did not stay up.
        due_at: it is down and is to be started again then.
    """

    count: int = 0
    tries: int = 0
    due_at: datetime | None = None


#: Nothing was started by banger itself, and nothing is about to be.
NO_RESTARTS = Restarts()


@dataclass(frozen=True, slots=True)
class Vm:
    """A virtual machine: wish (``spec``) and fact (everything else).

    Attributes:
        reason: why the state is what it is, for people; set with ``failed`` and by unexpected stops.
        storage: the storage driver that made its disk.
        vmm: the VMM driver that runs it, or ran it last.
        vmm_version: which release of that VMM, as it tells itself; empty where it was never started.
        vmm_reason: why it is that one, in one line.
        network: that it is on; empty while not running.
        network_reason: why that is not the one of its spec, in one line; empty if it is.
        address: where the host reaches the guest; empty while not running.
        last_ports: published ports of the last start; what banger had picked is picked again if it is free.
        paused_by: ``user``; ``guard`` when the host was about to run out of room, or had none for what it wrote;
            ``disk`` when the host did not take its writes for another reason; empty while not paused.
        attended: a run session holds it, and it is deleted when that ends; see :mod:`banger.core.attendance`.
        origin_snapshot: id of the snapshot that it was made from, which may be gone; empty if it was made from none.
        forked_from: name that the VM had whose copy it began as; empty if it began from its image.
        from_template: id of the template that its last start went on from, which may be gone; empty if it booted.
        makes_template: key of the template that it is booted for: banger's own, and nobody sees it.
        keep_home: what deleting it does with its home disk; false once a user has wished it deleted.
        accelerator: of the running VMM.
        restarts: what banger started by itself, and is about to.
        pid: of the VMM; 0 while not running.
        timings: steps of the last start, for the waterfall.
    """

    id: str
    name: str
    spec: VmSpec
    state: VmState
    created_at: datetime
    owner_uid: int = 0
    image_id: str = ""
    kernel_id: str = ""
    storage: str = ""
    vmm: str = ""
    vmm_version: str = ""
    vmm_reason: str = ""
    network: str = ""
    network_reason: str = ""
    reason: str = ""
    exit_reason: ExitReason = ExitReason.NONE
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    address: str = ""
    ports: tuple[PortForward, ...] = ()
    last_ports: tuple[PortForward, ...] = ()
    accelerator: str = ""
    paused_by: str = ""
    attended: bool = False
    keep_home: bool = True
    restarts: Restarts = NO_RESTARTS
    pid: int = 0
    timings: tuple[StepTiming, ...] = ()
    origin_snapshot: str = ""
    forked_from: str = ""
    from_template: str = ""
    makes_template: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A VM of one instant: ``snapshots/ID/`` holds its disk and, if it ran, its machine.

    Attributes:
        name: unique.
        vm_id, vm_name: of the VM that it was taken of, which may be gone.
        parent_id: of the snapshot that this VM was made from, which may be gone; empty if it was made from none.
        spec: of the VM then, with its sizes.
        storage: the storage driver that made its disk, and makes others of it.
        vmm, vmm_version, cpu, accelerator: what its machine ran on, and what alone can take it; empty for a VM that was
            stopped, whose snapshot has a disk and no memory.
        memory_mib: of its machine; 0 if it has none.
        details: what the VMM driver noted for itself.
        memory_bytes, disk_bytes: what its machine and its disk took on the host's disk when they were made.
        is_checkpoint: it was taken before a command, and goes when there are newer ones.
    """

    id: str
    name: str
    vm_id: str
    vm_name: str
    image_id: str
    kernel_id: str
    spec: VmSpec
    storage: str
    created_at: datetime
    owner_uid: int = 0
    parent_id: str = ""
    vmm: str = ""
    vmm_version: str = ""
    cpu: str = ""
    accelerator: str = ""
    memory_mib: int = 0
    details: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    disk_bytes: int = 0
    is_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """What proves that a process is the one we started: a pid alone is reused."""

    pid: int
    start_ticks: int
    boot_id: str
    marker: str

    @property
    def known(self) -> bool:
        """False for the empty identity of a process that was never started."""
        return self.pid > 0


@dataclass(frozen=True, slots=True)
class GuestAccess:
    """What banger's ssh server in one guest is known by, and who may log in. It is reached through the guest's agent.

    The host key is known in advance, so checking is strict.
    """

    vm_id: str
    host_key: str
    private_key_path: str
    user: str = "root"
