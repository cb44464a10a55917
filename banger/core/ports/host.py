"""The ports for what a VM holds on the host: the ledger, storage drivers and capabilities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from banger.core.cancel import CancelToken
from banger.core.models import Image, Vm
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports.contribution import Contribution
from banger.core.ports.guest import Mount
from banger.core.ports.machine import DeviceKind, Drive


@dataclass(frozen=True, slots=True)
class Handle:
    """One thing a VM holds on the host.

    Attributes:
        kind: ``process``, ``run_dir``, ``port``, ``tap``, ``loop``, ``dm``, …
        key: predictable before the thing is made, so that a crash at any instruction leaves something findable.
        state: ``intended`` before it is made, ``active`` after.
        detail: what was observed once it existed (a pid and its start time, say).
    """

    vm_id: str
    kind: str
    key: str
    state: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class VmLedger(Protocol):
    """One VM's part of the ledger. Every method returns when the entry is durable; every method may be repeated."""

    def intend(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down what is about to be made."""
        ...

    def activate(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down that it exists now, and what identifies it."""
        ...

    def strike(self, kind: str, key: str | None = None) -> None:
        """Cross out what is gone: one key, or all of a kind."""
        ...

    def of(self, kind: str | None = None) -> list[Handle]:
        """What the VM holds."""
        ...


@dataclass(frozen=True, slots=True)
class Fill:
    """How full the place is where a VM's changes go.

    Attributes:
        used_bytes: what is taken there.
        total_bytes: what there is.
        can_overflow: the guest may change more than fits, and then loses what it writes.
        failure: why nothing can be written any more, or empty.
    """

    used_bytes: int
    total_bytes: int
    can_overflow: bool = False
    failure: str = ""


class Storage(Protocol):
    """A storage driver: how a VM gets a disk of its own over a shared, read-only image.

    Attributes:
        name: ``overlay``, ``reflink``, ``dm-snapshot``, ``copy``.
        root: what the guest does with its drives, see :class:`~banger.core.ports.guest.GuestConfig`.
        is_lost_when_host_is_full: a write that finds no room on the host costs the whole disk.
    """

    name: str
    root: str
    is_lost_when_host_is_full: bool

    def create(self, vm_dir: Path, rootfs: Path, size_mib: int, operation: Operation) -> None:
        """Make the VM's writable part in ``vm_dir``. Idempotent. Raises ``exhausted`` when there is no room.

        ``size_mib`` is the size of the file system that the guest may fill; never less than the image's own.
        """
        ...

    def attach(self, vm_id: str, vm_dir: Path, rootfs: Path, ledger: VmLedger) -> Sequence[Drive]:
        """Make the block devices of one start, each written to ``ledger`` before it is made. Idempotent."""
        ...

    def detach(self, vm_id: str, vm_dir: Path, ledger: VmLedger) -> Sequence[CleanupStep]:
        """Steps that take down what :meth:`attach` made, also what it only intended. Subjects are unique per VM."""
        ...

    def grow(self, vm_dir: Path, size_mib: int, operation: Operation) -> None:
        """Make the disk of a stopped VM larger, file system included. Raises ``usage`` for a smaller size."""
        ...

    def freeze(self, vm_id: str, vm_dir: Path, into: Path, token: CancelToken) -> None:
        """Copy the disk as it is now into the directory ``into``: a *generation*, which nobody writes to any more.

        The VM is stopped, or its machine stands still, and for its sake this takes time by what was written, not by the
        disk's size, and waits for no sync: whoever publishes ``into`` syncs it.

        Raises:
            BangerError: ``exhausted``, ``not_found``, ``cancelled``; ``into`` is to be thrown away then.
        """
        ...

    def fork(self, generation: Path, vm_dir: Path, operation: Operation) -> None:
        """Make a VM's disk of a generation of this driver, in the place of :meth:`create`. Idempotent, and durable.

        The generation is only read, and nobody needs it afterwards. ``vm_dir`` may be an empty directory, whose files
        are moved to the VM's later. Raises as :meth:`freeze`.
        """
        ...

    def remove(self, vm_dir: Path) -> None:
        """Delete the writable part; already gone is success."""
        ...

    def fill(self, vm_id: str, vm_dir: Path) -> Fill:
        """How much of what the VM may write is taken, now."""
        ...


@dataclass(frozen=True, slots=True)
class HostObject:
    """Something on the host that carries this installation's id.

    Attributes:
        kind, key: as in the ledger.
        vm_id: of the VM that its name tells, or empty.
        reason: why it is here, or why nobody needs it, for people.
        remove: takes it down; already gone is success.
        since: seconds since the epoch when it was made or last changed; 0 if that cannot be told.
        shared: it serves all VMs (a bridge, a table of rules) and is in nobody's ledger: ``refresh`` looks after it.
    """

    kind: str
    key: str
    vm_id: str
    reason: str
    remove: Callable[[], None]
    since: float = 0.0
    shared: bool = False


class Capability(Protocol):
    """Something a VM can have on its host besides disk and process: a network, ports, a name, a home disk.

    The VM's owner runs ``prepare`` of every capability that applies before the VMM starts, in the order in which they
    are wired, then ``hold`` if the VMM loads a saved machine, ``started`` once the guest answers, and ``cleanup`` in
    the reverse order, after the VMM is gone.
    """

    name: str

    def applies(self, vm: Vm) -> bool:
        """True if this VM has it."""
        ...

    def devices(self, vm: Vm) -> Collection[DeviceKind]:
        """The kinds of devices that :meth:`prepare` will ask of the machine: whether it can have them is told first."""
        ...

    def mounts(self, vm: Vm) -> Collection[Mount]:
        """What :meth:`prepare` will ask the guest to mount."""
        ...

    def prepare(self, vm: Vm, image: Image, ledger: VmLedger, operation: Operation) -> Contribution:
        """Make what it needs on the host, each thing written to ``ledger`` before it is made. Idempotent."""
        ...

    def hold(self, vm: Vm, ledger: VmLedger) -> None:
        """Between ``prepare`` and the VMM's start: the guest will be a copy, and not know yet who it is. Idempotent.

        Nobody may hear of it, nor it of anybody, before ``started``.
        """
        ...

    def started(self, vm: Vm, ledger: VmLedger) -> None:
        """The guest answers, as who it is: do what has to wait for that. ``vm`` has its address and ports."""
        ...

    def adopted(self, vm: Vm, ledger: VmLedger) -> None:
        """A daemon looked, and the VM runs: see to what it has on the host besides its VMM. Called often."""
        ...

    def cleanup(self, vm: Vm, ledger: VmLedger) -> Sequence[CleanupStep]:
        """Steps that take down what ``ledger`` says this VM holds of it, whether or not it still applies."""
        ...

    def erase(self, vm: Vm) -> None:
        """The VM is being deleted: let go of what it had beyond one start, as ``vm.keep_home`` says. Idempotent."""
        ...

    def used_bytes(self, vm: Vm) -> int:
        """What a VM's disks that are of this capability take on the host's file system, now. Asked all the time."""
        ...

    def refresh(self, vms: Collection[Vm]) -> None:
        """Make what is shared by all VMs (rules, names) agree with those that run now: at start and on a tick."""
        ...

    def host_objects(self) -> Sequence[HostObject]:
        """Everything on the host that carries this installation's id and is of this capability's kinds."""
        ...
