"""The row of what was saved of a VM."""

from __future__ import annotations

from pathlib import Path

from banger.actors.messages import SavedVm
from banger.actors.orphans import occupied
from banger.core import clock
from banger.core.models import Snapshot
from banger.core.names import new_id
from banger.core.origin import disk_in, machine_in


def snapshot_row(saved: SavedVm, directory: Path, name: str, owner_uid: int) -> Snapshot:
    """What ``directory`` holds, which a VM was saved into."""
    vm, machine = saved.vm, saved.machine
    of_machine = {} if machine is None else {
        "vmm": machine.vmm, "vmm_version": machine.vmm_version, "cpu": machine.cpu,
        "accelerator": machine.accelerator, "memory_mib": machine.memory_mib, "details": machine.details,
    }  # fmt: skip
    return Snapshot(
        id=new_id(),
        name=name,
        vm_id=vm.id,
        vm_name=vm.name,
        image_id=vm.image_id,
        kernel_id=vm.kernel_id,
        spec=vm.spec,
        storage=vm.storage,
        created_at=clock.now(),
        owner_uid=owner_uid,
        parent_id=vm.origin_snapshot,
        memory_bytes=occupied(machine_in(directory)),
        disk_bytes=occupied(disk_in(directory)),
        **of_machine,  # type: ignore[arg-type]  # of a mapping, each has the type of its field
    )
