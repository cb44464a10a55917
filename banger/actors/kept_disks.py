"""The disk that a rewound VM had, as its owner holds it: in the ledger until the rewound machine answers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.core.crashpoints import crashpoint
from banger.core.models import Vm
from banger.core.plan import CleanupStep
from banger.core.ports import VmLedger
from banger.host import kept_disk, publish
from banger.layout import Layout

#: In the ledger; its detail is what the row says if it is put back.
KIND = "kept_disk"


def change_disk(services: Services, vm: Vm, new: Path) -> None:
    """Give a VM that is down the disk in the directory ``new``, and keep its own."""
    directory = VmFiles(services.layout, vm.id).directory
    row = {"disk_mib": vm.spec.disk_mib, "origin_snapshot": vm.origin_snapshot}
    services.host.ledger.of(vm.id).intend(KIND, str(directory), row)
    crashpoint("vm.rewind:change-intended")
    kept_disk.change(directory, new)


def put_back_step(vm: Vm, directory: Path, ledger: VmLedger, needs: tuple[str, ...]) -> list[CleanupStep]:
    """What gives a VM its own disk back, if that was not given up yet."""

    def put_back() -> None:
        kept_disk.put_back(directory)
        crashpoint("vm.rewind:disk-put-back")
        ledger.strike(KIND)

    return [CleanupStep(f"disk that {vm.name} had", put_back, needs=needs)] if ledger.of(KIND) else []


def give_up(directory: Path, ledger: VmLedger, layout: Layout) -> None:
    """The new disk stays."""
    doomed = kept_disk.give_up(directory, layout)
    crashpoint("vm.rewind:disk-given-up")
    ledger.strike(KIND)
    if doomed is not None:
        with suppress(OSError):  # it is trash, and swept one day
            publish.remove(doomed)


def as_before(services: Services, vm: Vm) -> Vm:
    """The VM as it is once its disk is put back, if that is to come."""
    handles = services.host.ledger.of(vm.id).of(KIND)
    if not handles or not kept_disk.is_kept(VmFiles(services.layout, vm.id).directory):
        return vm
    row = handles[0].detail
    spec = replace(vm.spec, disk_mib=int(row["disk_mib"]))
    return replace(vm, spec=spec, origin_snapshot=str(row["origin_snapshot"]))
