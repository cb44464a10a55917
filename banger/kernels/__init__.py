"""Guest kernels: where they come from, what their files say, and which of their modules a boot needs."""

from __future__ import annotations

from banger.core.ports import KernelSource
from banger.kernels.apt_source import AptKernelSource
from banger.kernels.file_source import FileKernelSource
from banger.layout import Layout


def sources(layout: Layout) -> list[KernelSource]:  # noqa: ARG001  # as every factory of adapters
    """Every kernel source, in the order to ask them."""
    return [AptKernelSource(), FileKernelSource()]
