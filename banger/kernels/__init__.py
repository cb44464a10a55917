"""Guest kernels: where they come from, what their files say, and which of their modules a boot needs."""

from __future__ import annotations

from banger.config import Config
from banger.core.ports import KernelSource
from banger.kernels.apt_source import AptKernelSource
from banger.kernels.artifact_source import KernelArtifactSource
from banger.kernels.file_source import FileKernelSource
from banger.kernels.url_source import UrlKernelSource
from banger.layout import Layout


def sources(layout: Layout, config: Config) -> list[KernelSource]:
    """Every kernel source, in the order to ask them."""
    return [
        AptKernelSource(),
        FileKernelSource(),
        KernelArtifactSource(layout, config),
        UrlKernelSource(layout, config),
    ]
