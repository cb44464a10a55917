"""Objects as JSON: their own fields plus derived ones that need other objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from banger.actors.orphans import occupied
from banger.api.context import ApiContext
from banger.api.vm_texts import Derived
from banger.core import codec
from banger.core.models import Image, Kernel, Snapshot, Vm, VmmProgram, VmState
from banger.store.users import Users

#: States in which a VM's directory may not be there yet, or any more.
_WITHOUT_FILES = (VmState.CREATING, VmState.DELETING)
_NOT_RUNNING = (VmState.CREATING, VmState.STOPPED, VmState.DELETING)


def image_view(context: ApiContext, image: Image) -> dict[str, Any]:
    """An image with who uses it, and what is wrong with it."""
    rootfs = context.layout.image_rootfs(image)
    return {
        **codec.to_plain(image),
        **_users_view(context.store.users_of_image(image.id)),
        "broken": "" if rootfs.exists() else f"{rootfs} is missing",
    }


def kernel_view(context: ApiContext, kernel: Kernel) -> dict[str, Any]:
    """A kernel with who uses it, and what is wrong with it."""
    file = context.layout.kernel_dir(kernel.id) / "vmlinuz"
    return {
        **codec.to_plain(kernel),
        **_users_view(context.store.users_of_kernel(kernel.id)),
        "broken": "" if file.exists() else f"{file} is missing",
    }


def _users_view(users: Users) -> dict[str, list[str]]:
    return {"used_by": list(users.vms), "snapshots": list(users.snapshots)}


def snapshot_view(context: ApiContext, snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot with what it is of, the VMs that began from it, and what is wrong with it."""
    store = context.store
    image, kernel = store.images.get(snapshot.image_id), store.kernels.get(snapshot.kernel_id)
    parent = store.snapshots.get(snapshot.parent_id) if snapshot.parent_id else None
    directory = context.layout.snapshot_dir(snapshot.id)
    return {
        **codec.to_plain(snapshot),
        "image_name": image.name if image else "",
        "kernel_name": kernel.name if kernel else "",
        "parent_name": parent.name if parent else "",
        "vms": [vm.name for vm in store.vms.from_snapshot(snapshot.id)],
        "broken": "" if directory.exists() else f"{directory} is missing",
    }


def driver_view(program: VmmProgram, vms: Sequence[Vm]) -> dict[str, Any]:
    """A VMM with the VMs that run on it now; for the host's own, whatever its version was when they were started."""
    used_by = [
        vm.name
        for vm in vms
        if vm.vmm == program.name
        and vm.state not in _NOT_RUNNING
        and (program.origin == "host" or vm.vmm_version == program.version)
    ]
    return {**codec.to_plain(program), "used_by": used_by}


def _suspended_bytes(context: ApiContext, vm: Vm) -> int:
    """What the machine of a suspended VM takes on the disk."""
    return occupied(context.layout.suspended_dir(vm.id)) if vm.state is VmState.SUSPENDED else 0


def vm_view(context: ApiContext, vm: Vm) -> dict[str, Any]:
    """A VM with the names of what it is made of, and what is wrong with it."""
    [(_, derived)] = vm_facts(context, [vm])
    return {**codec.to_plain(vm), **derived}


def vm_facts(context: ApiContext, vms: Sequence[Vm]) -> list[tuple[Vm, Derived]]:
    """What is said of VMs beside their own fields; images and kernels are looked up once for all of them."""
    images = {image.id: image.name for image in context.store.images.all()}
    kernels = {kernel.id: kernel.name for kernel in context.store.kernels.all()}
    there = {entry.name for entry in os.scandir(context.layout.data / "vms")}
    return [
        (
            vm,
            {
                "image_name": images.get(vm.image_id, vm.spec.image),
                "kernel_name": kernels.get(vm.kernel_id, vm.spec.kernel),
                "broken": "" if vm.id in there or vm.state in _WITHOUT_FILES else "its directory is missing",
                "suspended_bytes": _suspended_bytes(context, vm),
            },
        )
        for vm in vms
    ]
