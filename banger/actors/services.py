"""The dependencies of the owners: wired once by the daemon, replaced individually by tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from banger.actors.messages import Command, PullImage, PullKernel
from banger.config import Config
from banger.core.attendance import Attendance
from banger.core.cancel import Deadline
from banger.core.drivers import Drivers
from banger.core.models import Image, Kernel, ProcessIdentity, Vm
from banger.core.ports import (
    Capability,
    EvidenceKeeper,
    GuestBoot,
    Guests,
    HostKeys,
    HostObject,
    ImageSource,
    ImageTools,
    KernelSource,
    SnapshotArchives,
    Storage,
    VmmDriver,
    VmmLauncher,
    VmmProcesses,
    VmmReleases,
)
from banger.core.random_reads import RandomReads
from banger.core.waiter import Waiter
from banger.host.ledger import Ledger
from banger.host.uids import VmmUids
from banger.layout import Layout
from banger.store import Store

Submitter = Callable[[Command, Deadline], Waiter]


class Resolver(Protocol):
    """What a name that somebody typed means: something that is there, or how to get it."""

    def image(self, query: str, owner_uid: int) -> Image | PullImage:
        """The image itself, or the command that brings it."""
        ...

    def kernel_of(self, image: Image, owner_uid: int) -> Kernel | PullKernel:
        """The kernel that an image wants for its VMs, or the default one."""
        ...

    def kernel(self, query: str, owner_uid: int) -> Kernel | PullKernel:
        """The kernel itself, or the command that brings it."""
        ...


class Watcher(Protocol):
    """Tells when a VMM process ends."""

    def watch(self, vm_id: str, identity: ProcessIdentity) -> None:
        """Begin to watch; an exit comes back as a ``ReconcileVm``."""
        ...

    def unwatch(self, vm_id: str) -> None:
        """Stop watching."""
        ...


class Doors(Protocol):
    """The published ports of suspended VMs: who comes to one wakes its VM. Every method may be repeated."""

    def listen(self, vm: Vm) -> None:
        """Hold them. Raises ``conflict`` if somebody else has one by now, and then holds none."""
        ...

    def let_go(self, vm_id: str) -> None:
        """Hold them no more."""
        ...


@dataclass(frozen=True, slots=True)
class Vmms:
    """What runs machines: its drivers, and what is the same for all of them. ``setting`` is ``vmm.driver``."""

    drivers: Drivers[VmmDriver]
    processes: VmmProcesses
    launcher: VmmLauncher
    setting: str


@dataclass(frozen=True, slots=True)
class ArtifactServices:
    """What the owners of images, kernels and releases of VMMs make them with."""

    image_sources: Sequence[ImageSource]
    kernel_sources: Sequence[KernelSource]
    image_tools: ImageTools
    snapshot_archives: SnapshotArchives
    vmm_releases: Drivers[VmmReleases]


@dataclass(frozen=True, slots=True)
class VmServices:
    """What makes a machine of a VM, and a guest of a machine.

    Attributes:
        resolver: what the names in its spec mean.
        vmms: what runs machines.
        watcher: tells when one ends.
        boot: makes what a guest boots into.
        guests: those that run.
        authorized_key: the OpenSSH public key that every guest of this installation lets in.
        attendance: the VMs that are held by sessions.
        host_keys: makes those of servers in guests.
        doors: published ports of suspended VMs.
        random_reads: random numbers of guests that were started from saved machines.
    """

    resolver: Resolver
    vmms: Vmms
    watcher: Watcher
    boot: GuestBoot
    guests: Guests
    authorized_key: str
    attendance: Attendance
    host_keys: HostKeys
    doors: Doors
    random_reads: RandomReads = field(default_factory=RandomReads)


@dataclass(frozen=True, slots=True)
class HostServices:
    """What is on the host, and what is known of it.

    Attributes:
        ledger: what every VM holds there.
        evidence: of VMs that went wrong.
        storages: every storage driver; new VMs get the default.
        capabilities: in the order in which a start prepares them.
        host_objects: each lists what one part of banger has on the host.
        uids: users for VMMs.
    """

    ledger: Ledger
    evidence: EvidenceKeeper
    storages: Drivers[Storage]
    capabilities: Sequence[Capability]
    host_objects: Sequence[Callable[[], Sequence[HostObject]]]
    uids: VmmUids


@dataclass(frozen=True, slots=True)
class Services:
    """What every owner uses, and what those of one kind do.

    Attributes:
        submit: asks other owners, by way of the supervisor, without blocking.
    """

    layout: Layout
    config: Config
    store: Store
    submit: Submitter
    artifacts: ArtifactServices
    vms: VmServices
    host: HostServices
