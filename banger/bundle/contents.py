"""Making a bundle of an image: its blobs, stored where the caller says, and the manifest that names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from banger.bundle.disks import pack_disk
from banger.bundle.layout_archive import Packer
from banger.bundle.manifest import (
    ARTIFACT_TYPE,
    MANIFEST_TYPE,
    ROOTFS_TYPE,
    SEED_TYPE,
    BundleManifest,
    Disk,
    is_kernel_source,
)
from banger.core import clock
from banger.core.models import Image, Kernel
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.core.ports import KernelReference
from banger.oci.artifact import CREATED, TITLE, LocalBlob, manifest_bytes, must_be_readable

ROOTFS, SEED = "rootfs.ext4", "seed.ext4"


class BlobPlace(Protocol):
    """Where blobs go while they are made."""

    def put(self, media_type: str, title: str, pack: Packer) -> LocalBlob:
        """Let ``pack`` write one blob."""
        ...


class ScratchDirectory:
    """A place for blobs that are about to be pushed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, media_type: str, title: str, pack: Packer) -> LocalBlob:
        """Write a file."""
        file = self._directory / new_id()
        with file.open("wb") as sink:
            digest, size = pack(sink)
        return LocalBlob(media_type, digest, size, file, title=title)


@dataclass(frozen=True, slots=True)
class Packed:
    """Something ready to travel: ``manifest`` names ``config`` and ``layers``."""

    manifest: bytes
    config: LocalBlob
    layers: Sequence[LocalBlob]


@dataclass(frozen=True, slots=True)
class BundleInput:
    """What a bundle is made of.

    Attributes:
        image: what is bundled.
        image_dir: holds its ``rootfs.ext4`` (but for an unmanaged image) and, if it has one, its ``seed.ext4``.
        kernel: the kernel to refer to; without one, what the image itself says.
    """

    image: Image
    image_dir: Path
    kernel: Kernel | None = None


def pack_bundle(source: BundleInput, place: BlobPlace, operation: Operation) -> Packed:
    """Make a bundle. Equal input gives equal bytes.

    Args:
        source: what goes into it.
        place: takes the blobs.
        operation: gets the step "pack"; its token cancels.

    Raises:
        BangerError: ``invalid`` if a file is no ext4; ``cancelled``.
        OSError: something cannot be read or written.
    """
    image, kernel = source.image, source.kernel
    files = [(ROOTFS_TYPE, rootfs_of(image, source.image_dir), ROOTFS)]
    if image.has_seed:
        files.append((SEED_TYPE, source.image_dir / SEED, SEED))
    disks: list[Disk] = []
    with operation.step("pack") as step:
        total = sum(file.stat().st_size for _, file, _ in files)

        def packer(file: Path) -> Packer:
            before = sum(disk.size_bytes for disk in disks)

            def pack(sink: BinaryIO) -> tuple[str, int]:
                disk, digest, size = pack_disk(
                    file, sink, operation.token, lambda done: step.update(before + done, total)
                )
                disks.append(disk)
                return digest, size

            return pack

        layers = [place.put(media_type, f"{name}.sparse.zst", packer(file)) for media_type, file, name in files]
    manifest = BundleManifest(
        name=image.name,
        source=image.source,
        image_digest=image.digest,
        platform=image.platform,
        created=clock.rfc3339(image.created_at),
        rootfs=disks[0],
        seed=disks[1] if image.has_seed else None,
        config=image.config,
        kernel=_reference(image, kernel),
        defaults=image.defaults,
    )
    document = must_be_readable(manifest.to_bytes(), BundleManifest.parse, f'image "{image.name or image.id}"')
    config = LocalBlob.of_bytes(MANIFEST_TYPE, document)
    annotations = {TITLE: image.name, CREATED: manifest.created}
    return Packed(manifest_bytes(ARTIFACT_TYPE, config, layers, annotations), config, layers)


def _reference(image: Image, kernel: Kernel | None) -> KernelReference:
    """A kernel that came from a file of this host is known by its content alone."""
    if kernel is None:
        return KernelReference(image.kernel, image.kernel_digest, image.kernel_source)
    source = kernel.source if is_kernel_source(kernel.source) else ""
    return KernelReference(image.kernel or kernel.name, kernel.digest, source)


def rootfs_of(image: Image, image_dir: Path) -> Path:
    """The image's file system: in its directory, or the user's own file."""
    return Path(image.rootfs_path) if image.rootfs_path else image_dir / ROOTFS
