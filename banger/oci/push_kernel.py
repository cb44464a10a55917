"""Pushing a stored kernel as an artifact: image, modules, initrd and the document that describes them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from banger.config import Config
from banger.core import clock
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Kernel
from banger.core.operation import Operation
from banger.layout import Layout
from banger.oci import artifact_kernel as formats
from banger.oci.artifact import CREATED, TITLE, VERSION, LocalBlob, manifest_bytes, must_be_readable
from banger.oci.artifact_client import Registries
from banger.oci.artifact_zstd import ZstdBlob
from banger.oci.reference import Reference
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.tree_tar import TreeTar

_IMAGE, _MODULES, _INITRD = "vmlinuz", "modules.ext4", "initrd"


def push_kernel(
    layout: Layout,
    config: Config,
    kernel: Kernel,
    kernel_dir: Path,
    reference: str,
    *,
    plain_http: bool = False,
    operation: Operation,
) -> str:
    """Push a kernel; returns ``sha256:…`` of the manifest. The same kernel pushed again has the same digest.

    Args:
        layout: its ``staging`` holds the packed modules meanwhile.
        config: ``registry.insecure`` and ``registry.credentials``.
        kernel: what is pushed.
        kernel_dir: its ``vmlinuz``, ``modules.ext4`` and ``initrd``.
        reference: where to: ``ghcr.io/me/kernels/linux:6.1``.
        plain_http: talk http, not https.
        operation: gets the steps; its token cancels.

    Raises:
        BangerError: ``usage`` for a bad reference, and as :class:`banger.oci.push.PushClient` does.
    """
    from banger.oci.push import push_artifact  # noqa: PLC0415  # oras and requests are slow to import

    target = Reference.parse(reference)
    described = formats.KernelManifest.of(kernel).to_bytes()
    description = must_be_readable(described, formats.KernelManifest.parse, f'kernel "{kernel.name}"')
    layout.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"push-{operation.id}-", dir=layout.staging) as scratch:
        try:
            with operation.step("pack"):
                layers = _layers(kernel, kernel_dir, Path(scratch), operation.token)
        except OSError as error:
            message = f'cannot pack kernel "{kernel.name}"'
            raise BangerError(ErrorKind.UNAVAILABLE, message, subject=kernel.name, cause=str(error)) from error
        document = LocalBlob.of_bytes(formats.MANIFEST_TYPE, description)
        annotations = {TITLE: kernel.name, VERSION: kernel.version, CREATED: clock.rfc3339(kernel.created_at)}
        manifest = manifest_bytes(formats.ARTIFACT_TYPE, document, layers, annotations)
        client = Registries(config).writer(target, operation, plain_http=plain_http)
        return push_artifact(client, manifest, document, layers, operation)


def _layers(kernel: Kernel, kernel_dir: Path, scratch: Path, token: CancelToken) -> list[LocalBlob]:
    layers = [LocalBlob.of_file(formats.IMAGE_TYPE, kernel_dir / _IMAGE, token, _IMAGE)]
    if kernel.has_modules:
        layers.append(_modules(kernel_dir / _MODULES, scratch / "modules", token))
    if kernel.has_initrd:
        layers.append(LocalBlob.of_file(formats.INITRD_TYPE, kernel_dir / _INITRD, token, _INITRD))
    return layers


def _modules(disk: Path, packed: Path, token: CancelToken) -> LocalBlob:
    """The module tree as an archive, which says nothing of how its file system was laid out."""
    with packed.open("wb") as sink, Ext4Reader(disk) as tree:
        archive = ZstdBlob(sink, token)
        TreeTar(tree, token=token).write_to(archive)
        digest, size = archive.finish()
    return LocalBlob(formats.MODULES_ZSTD_TYPE, digest, size, packed, title="modules.tar.zst")
