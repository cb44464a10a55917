"""The sizes of a VM that does not specify them."""

from __future__ import annotations

from dataclasses import replace

from banger.config import Config
from banger.core.wire.sizes import DefaultSizes
from banger.core.wire.vm_spec import VmSpec
from banger.host.resources import cpu_count


def with_sizes(spec: VmSpec, image: DefaultSizes, config: Config) -> VmSpec:
    """``spec`` with what it leaves open filled in: from the image, else from the settings.

    An image suggests, so it gets no more CPUs than there are; what somebody typed is taken as it is.
    """
    return replace(
        spec,
        cpus=spec.cpus or min(image.cpus, cpu_count()) or config.number("vm.cpus"),
        memory_mib=spec.memory_mib or image.memory_mib or config.number("vm.memory_mib"),
        disk_mib=spec.disk_mib or image.disk_mib or config.number("vm.disk_mib"),
    )
