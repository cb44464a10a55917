"""Guest kernels: their sources, their files, and which of their modules a boot needs."""

from __future__ import annotations

from banger.config import Config
from banger.core.ports import KernelSource
from banger.kernels.apt_source import AptKernelSource
from banger.kernels.artifact_source import KernelArtifactSource
from banger.kernels.file_source import FileKernelSource
from banger.kernels.url_source import UrlKernelSource
from banger.layout import Layout
from banger.oci.blobs import BlobStore


def sources(layout: Layout, config: Config, blobs: BlobStore | None = None) -> list[KernelSource]:
    """Every kernel source, in the order to ask them; ``blobs`` is the store that they share with others."""
    return [
        AptKernelSource(),
        FileKernelSource(),
        KernelArtifactSource(layout, config, blobs=blobs),
        UrlKernelSource(layout, config, blobs),
    ]
