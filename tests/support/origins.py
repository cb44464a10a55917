"""A scripted registry with one small thing of every kind that can be pulled, and the sources that pull them."""

from __future__ import annotations

import os
from pathlib import Path

from banger.bundle.contents import BundleInput, ScratchDirectory, pack_bundle
from banger.bundle.source import BundleImageSource
from banger.catalog import Catalog
from banger.config import Config
from banger.core import clock
from banger.core.models import Image, Kernel
from banger.core.operation import Operation
from banger.core.wire.sizes import DefaultSizes
from banger.kernels.artifact_source import KernelArtifactSource
from banger.kernels.url_source import UrlKernelSource
from banger.layout import Layout
from banger.oci import artifact_kernel as formats
from banger.oci.artifact import LocalBlob, manifest_bytes, to_json
from banger.oci.blobs import BlobStore
from banger.oci.documents import OCI_MANIFEST
from banger.oci.platform import Platform
from banger.oci.source import OciImageSource
from banger.resolver import StoreResolver
from banger.rootfs.build import build_from_directory
from banger.rootfs.disk import make_disk
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.faulty_registry import FaultyRegistry
from tests.support.registry import Layer, Node, build_image
from tests.unit.test_kernels_image_file import RELEASE, bzimage

APP, BUNDLE, KERNEL = "test/app:1", "test/bundle:1", "test/kernel:1"


def serve_all(registry: FaultyRegistry, scratch: Path) -> None:
    """Hold an image of two layers, a bundle with a seed, and a kernel; ``scratch`` is a directory to make them in."""
    layers = [Layer({name: Node(os.urandom(200_000))}) for name in ("one", "two")]
    registry.serve(APP, build_image(layers))
    serve_bundle(registry, BUNDLE, scratch)
    serve_kernel(registry, KERNEL)


def serve_bundle(
    registry: FaultyRegistry,
    name: str,
    scratch: Path,
    *,
    kernel: Kernel | None = None,
    defaults: DefaultSizes | None = None,
) -> None:
    """Hold a bundle of a small file system with a work seed."""
    tree, directory = scratch / "tree", scratch / "image"
    tree.mkdir(parents=True)
    directory.mkdir()
    (tree / "random").write_bytes(os.urandom(200_000))
    operation = Operation("image.push", "x")
    stats = build_from_directory(tree, directory / "rootfs.ext4", operation=operation, size_bytes=16 << 20)
    make_disk(directory / "seed.ext4", 8 << 20, "seed")
    image = Image(
        id="i", name="team", source="x", digest="x", platform=str(Platform.host()), size_bytes=stats.size_bytes,
        disk_bytes=stats.disk_bytes, created_at=clock.now(), has_seed=True, defaults=defaults or DefaultSizes(),
    )  # fmt: skip
    packed = pack_bundle(BundleInput(image, directory, kernel), ScratchDirectory(scratch), operation)
    _serve(registry, name, packed.manifest, [packed.config, *packed.layers])


def serve_kernel(registry: FaultyRegistry, name: str) -> None:
    """Hold a kernel artifact."""
    described = {"version": RELEASE, "platform": str(Platform.host()), "format": "bzimage"}
    config = LocalBlob.of_bytes(formats.MANIFEST_TYPE, to_json(described))
    image = LocalBlob.of_bytes(formats.IMAGE_TYPE, bzimage(b"payload") + os.urandom(100_000))
    _serve(registry, name, manifest_bytes(formats.ARTIFACT_TYPE, config, [image], {}), [config, image])


def real_world(home: Path, *, free_bytes: bool = False, **changes: object) -> World:
    """A world whose images and kernels come from registries; ``free_bytes``: never ask how much room there is."""
    layout = Layout.from_environment({"BANGER_HOME": str(home)})
    config = Config.load(layout.config_file, {})
    world = World(home, FakeVmm(), image_sources=(), **changes)  # type: ignore[arg-type]
    blobs = BlobStore(layout.blobs, (lambda _: 1 << 60) if free_bytes else None, leases=_StoreLeases(world))
    bundles = BundleImageSource(layout, config, {}, blobs=blobs)
    world.make_resolver = lambda store: StoreResolver(store, Catalog.load(layout), config)
    world.use_sources(
        (bundles, OciImageSource(layout, config, {}, bundles, blobs)),
        (KernelArtifactSource(layout, config, {}, blobs), UrlKernelSource(layout, config, blobs)),
    )
    return world


class _StoreLeases:
    """Those of whatever store the world has now: a restart opens another one."""

    def __init__(self, world: World) -> None:
        self._world = world

    def take(self, holder, keys):  # type: ignore[no-untyped-def]
        self._world.store.leases.take(holder, keys)


def _serve(registry: FaultyRegistry, name: str, manifest: bytes, blobs: list[LocalBlob]) -> None:
    repository = name.partition(":")[0]
    registry.serve_manifest(name, manifest, OCI_MANIFEST)
    for blob in blobs:
        registry.serve_blob(repository, blob.file.read_bytes() if blob.file else blob.data)
