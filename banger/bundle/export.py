"""Exporting an image: as a bundle or as a plain OCI image, to a file or a registry."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from banger.bundle.contents import BlobPlace, BundleInput, Packed, ScratchDirectory, pack_bundle
from banger.bundle.layout_archive import REF_NAME, LayoutWriter
from banger.bundle.manifest import ARTIFACT_TYPE
from banger.bundle.oci_image import pack_oci_image, platform_object
from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.layout import Layout
from banger.oci.artifact import LocalBlob
from banger.oci.artifact_client import Registries
from banger.oci.documents import OCI_MANIFEST
from banger.oci.reference import Reference
from banger.posix.files import sync_path
from banger.rootfs.ext4.skeleton import host_error

Pack = Callable[[BlobPlace], Packed]


def export_bundle(source: BundleInput, target: Path, operation: Operation) -> str:
    """Write an image to one file, an OCI image layout as a tar archive; returns the manifest's digest.

    Equal images give equal files, and the digest that :func:`push_bundle` gives.

    Args:
        source: what is exported.
        target: the file to make, mode 0600; it appears in one step when it is complete.
        operation: gets the steps; its token cancels.

    Raises:
        BangerError: ``already_exists``; ``exhausted`` if the disk is full; ``invalid`` if the image is no ext4;
            ``cancelled``.
    """
    entry = {"artifactType": ARTIFACT_TYPE}
    return _export(source.image, target, lambda place: pack_bundle(source, place, operation), entry)


def push_bundle(
    layout: Layout,
    config: Config,
    source: BundleInput,
    reference: str,
    *,
    plain_http: bool = False,
    operation: Operation,
) -> str:
    """Push an image as a bundle; returns the manifest's digest.

    Args:
        layout: its ``staging`` holds the packed blobs meanwhile.
        config: ``registry.insecure`` and ``registry.credentials``.
        source: what is pushed.
        reference: where to.
        plain_http: talk http, not https.
        operation: gets the steps; its token cancels.

    Raises:
        BangerError: ``usage`` for a bad reference, as :func:`export_bundle`, and as
            :class:`banger.oci.push.PushClient` does.
    """
    target = Reference.parse(reference)
    with _scratch(layout, source.image, operation) as place:
        packed = pack_bundle(source, place, operation)
        return _push(config, target, packed, operation, plain_http=plain_http)


def export_oci_image(image: Image, image_dir: Path, target: Path, operation: Operation) -> str:
    """Write an image to one file that skopeo, podman and others read as ``oci-archive``; otherwise as above.

    What an OCI layer cannot hold is left out: sockets, and names that mean a whiteout.
    """
    entry = {"platform": platform_object(image.platform)}
    return _export(image, target, lambda place: pack_oci_image(image, image_dir, place, operation), entry)


def push_oci_image(
    layout: Layout,
    config: Config,
    image: Image,
    image_dir: Path,
    reference: str,
    *,
    plain_http: bool = False,
    operation: Operation,
) -> str:
    """Push an image as a plain container image; otherwise as :func:`push_bundle`."""
    target = Reference.parse(reference)
    with _scratch(layout, image, operation) as place:
        packed = pack_oci_image(image, image_dir, place, operation)
        return _push(config, target, packed, operation, plain_http=plain_http)


@contextmanager
def _scratch(layout: Layout, image: Image, operation: Operation) -> Iterator[ScratchDirectory]:
    layout.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f"push-{operation.id}-", dir=layout.staging) as scratch,
        _image_errors(image, layout.staging),
    ):
        yield ScratchDirectory(Path(scratch))


def _push(config: Config, target: Reference, packed: Packed, operation: Operation, *, plain_http: bool) -> str:
    from banger.oci.push import push_artifact  # noqa: PLC0415  # oras and requests are slow to import

    client = Registries(config).writer(target, operation, plain_http=plain_http)
    return push_artifact(client, packed.manifest, packed.config, packed.layers, operation)


def _export(image: Image, target: Path, pack: Pack, entry: Mapping[str, Any]) -> str:
    with _image_errors(image, target), appearing(target) as file:
        writer = LayoutWriter(file)
        packed = pack(writer)
        manifest = LocalBlob.of_bytes(OCI_MANIFEST, packed.manifest)
        named = {"annotations": {REF_NAME: image.name}} if image.name else {}
        writer.finish(manifest, [packed.config], {**entry, **named})
        return manifest.digest


@contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """A new file that gets the name ``target`` when the block ends well, and is gone otherwise."""
    if os.path.lexists(target):
        raise BangerError(ErrorKind.ALREADY_EXISTS, f'"{target}" already exists', subject=str(target))
    building = target.with_name(f".{target.name[:100]}.{new_id()}")
    descriptor = os.open(building, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield cast("BinaryIO", file)
            file.flush()
            os.fsync(descriptor)
        building.rename(target)
        sync_path(target.parent)
    except BaseException:
        building.unlink(missing_ok=True)
        raise


def _image_errors(image: Image, target: Path) -> AbstractContextManager[None]:
    return host_errors(f'export image "{image.name or image.id}"', image.disk_bytes, target)


@contextmanager
def host_errors(what: str, needed_bytes: int, target: Path) -> Iterator[None]:
    """Tell what the host refuses as that it cannot do ``what``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise host_error(error, target, needed_bytes) from error
        subject = str(error.filename or target)
        kind = ErrorKind.NOT_FOUND if isinstance(error, FileNotFoundError) else ErrorKind.DENIED
        message = f'cannot {what} because of "{subject}"'
        raise BangerError(kind, message, subject=subject, cause=error.strerror or str(error)) from error
