"""Releases of VMMs: fetched or taken from the user, checked against known sums, unpacked."""

from __future__ import annotations

from banger.config import Config
from banger.core.drivers import Drivers
from banger.core.ports import VmmReleases
from banger.layout import Layout
from banger.oci.blobs import BlobStore
from banger.releases.firecracker import FirecrackerReleases


def vmm_releases(layout: Layout, config: Config, blobs: BlobStore | None = None) -> Drivers[VmmReleases]:
    """Those VMMs that banger can install; ``blobs`` is the store that they share with others."""
    firecracker = FirecrackerReleases(layout, config, blobs)
    return Drivers("VMM to install", [firecracker], firecracker.name)
