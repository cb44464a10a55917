"""An image as a plain OCI container image with one layer, for other tools."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from banger.bundle.contents import BlobPlace, Packed, rootfs_of
from banger.bundle.manifest import config_object
from banger.core import clock
from banger.core.models import Image
from banger.core.operation import Operation
from banger.oci.artifact import LocalBlob, to_json
from banger.oci.artifact_zstd import ZstdBlob
from banger.oci.documents import OCI_MANIFEST
from banger.oci.platform import Platform
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.tree_tar import TreeTar

_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"


def pack_oci_image(image: Image, image_dir: Path, place: BlobPlace, operation: Operation) -> Packed:
    """Make a container image. Equal input gives equal bytes.

    Args:
        image: what is packed.
        image_dir: holds its ``rootfs.ext4`` (but for an unmanaged image).
        place: takes the layer.
        operation: gets the step "pack"; its token cancels.

    Raises:
        BangerError: ``invalid`` if the file system cannot be read; ``cancelled``.
        OSError: something cannot be read or written.
    """
    diff_id = hashlib.sha256()

    with operation.step("pack") as step, Ext4Reader(rootfs_of(image, image_dir)) as tree:
        superblock = tree.superblock
        total = (superblock.blocks - superblock.free_blocks) * superblock.block_bytes

        def pack(sink: BinaryIO) -> tuple[str, int]:
            blob = ZstdBlob(sink, operation.token)
            done = 0
            for chunk in TreeTar(tree, token=operation.token).chunks():
                diff_id.update(chunk)
                blob.write(chunk)
                done += len(chunk)
                step.update(min(done, total), total)
            return blob.finish()

        layer = place.put(_LAYER_TYPE, "", pack)
    config = LocalBlob.of_bytes(_CONFIG_TYPE, _configuration(image, f"sha256:{diff_id.hexdigest()}"))
    manifest = to_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        }
    )
    return Packed(manifest, config, [layer])


def platform_object(platform: str) -> dict[str, str]:
    """``linux/arm64/v8`` as OCI's JSON has it."""
    parsed = Platform.parse(platform)
    stated = {"architecture": parsed.architecture, "os": parsed.os}
    return stated | ({"variant": parsed.variant} if parsed.variant else {})


def _configuration(image: Image, diff_id: str) -> bytes:
    """OCI image specification, "Image Configuration"; what is empty is left out, as other builders do."""
    created = clock.rfc3339(image.created_at)
    return to_json(
        {
            "created": created,
            **platform_object(image.platform),
            "config": {key: value for key, value in config_object(image.config).items() if value},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": created, "created_by": "banger"}],
        }
    )
