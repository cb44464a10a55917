"""A capability whose host objects are files in a directory, and whose steps fail when told to."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from banger.core.crashpoints import crashpoint
from banger.core.models import Image, Vm
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import Contribution, DeviceKind, HostObject, Mount, VmLedger


@dataclass
class FakeCapability:
    """Makes ``place/NAME-VM_ID``.

    Attributes:
        failing: the errno that its cleanup ends with, while set.
        refuses: :meth:`prepare` raises this after it has made its object.
        cleaned: ids of VMs whose cleanup ran, in order.
        refreshed: the VMs of each refresh.
        used: what disks of its take, by VM id.
        held: ids of VMs that nobody hears of.
    """

    name: str
    place: Path
    failing: int = 0
    refuses: Exception | None = None
    cleaned: list[str] = field(default_factory=list)
    refreshed: list[set[str]] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)

    def applies(self, vm: Vm) -> bool:
        return True

    def object_of(self, vm_id: str) -> Path:
        return self.place / f"{self.name}-{vm_id}"

    def devices(self, vm: Vm) -> Collection[DeviceKind]:
        return ()

    def mounts(self, vm: Vm) -> Collection[Mount]:
        return ()

    def prepare(self, vm: Vm, image: Image, ledger: VmLedger, operation: Operation) -> Contribution:
        path = self.object_of(vm.id)
        ledger.intend(self.name, path.name)
        crashpoint("fake.prepare:intended")
        path.touch()
        crashpoint("fake.prepare:made")
        ledger.activate(self.name, path.name)
        if self.refuses is not None:
            raise self.refuses
        return Contribution()

    def hold(self, vm: Vm, ledger: VmLedger) -> None:
        self.held.add(vm.id)

    def started(self, vm: Vm, ledger: VmLedger) -> None:
        self.held.discard(vm.id)

    def adopted(self, vm: Vm, ledger: VmLedger) -> None:
        pass

    def cleanup(self, vm: Vm, ledger: VmLedger) -> Sequence[CleanupStep]:
        def remove() -> None:
            self.cleaned.append(vm.id)
            if self.failing:
                raise OSError(self.failing, errno.errorcode[self.failing])
            self.object_of(vm.id).unlink(missing_ok=True)
            crashpoint("fake.cleanup:gone")
            ledger.strike(self.name)

        return [CleanupStep(f"{self.name} of {vm.name}", remove)]

    def erase(self, vm: Vm) -> None:
        pass

    def used_bytes(self, vm: Vm) -> int:
        return self.used.get(vm.id, 0)

    def refresh(self, vms: Collection[Vm]) -> None:
        self.refreshed.append({vm.name for vm in vms})

    def host_objects(self) -> Sequence[HostObject]:
        return [
            HostObject(
                self.name, path.name, path.name.rpartition("-")[2], "a test's", path.unlink, path.stat().st_ctime
            )
            for path in sorted(self.place.glob(f"{self.name}-*"))
        ]
