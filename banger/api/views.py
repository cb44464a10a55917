"""Objects as JSON: their own fields plus what only the whole picture tells."""

from __future__ import annotations

from typing import Any

from banger.api.context import ApiContext
from banger.core import codec
from banger.core.models import Image, Kernel, Vm


def image_view(context: ApiContext, image: Image) -> dict[str, Any]:
    """An image with who uses it, and what is wrong with it."""
    rootfs = context.layout.image_rootfs(image)
    return {
        **codec.to_plain(image),
        "used_by": [vm.name for vm in context.store.vms.using_image(image.id)],
        "broken": "" if rootfs.exists() else f"{rootfs} is missing",
    }


def kernel_view(context: ApiContext, kernel: Kernel) -> dict[str, Any]:
    """A kernel with who uses it, and what is wrong with it."""
    file = context.layout.kernel_dir(kernel.id) / "vmlinuz"
    return {
        **codec.to_plain(kernel),
        "used_by": [vm.name for vm in context.store.vms.using_kernel(kernel.id)],
        "broken": "" if file.exists() else f"{file} is missing",
    }


def vm_view(context: ApiContext, vm: Vm) -> dict[str, Any]:
    """A VM with the names of what it is made of, and what is wrong with it."""
    image = context.store.images.get(vm.image_id) if vm.image_id else None
    kernel = context.store.kernels.get(vm.kernel_id) if vm.kernel_id else None
    directory = context.layout.vm_dir(vm.id)
    missing = vm.state not in ("creating", "deleting") and not directory.exists()
    return {
        **codec.to_plain(vm),
        "image_name": image.name if image else vm.spec.image,
        "kernel_name": kernel.name if kernel else vm.spec.kernel,
        "broken": f"{directory} is missing" if missing else "",
    }
