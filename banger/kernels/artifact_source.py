"""Kernels from registries: ``oci:REFERENCE`` of a kernel artifact."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from banger.config import Config
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltKernel, KernelRequest
from banger.kernels import staging
from banger.kernels.image_file import KernelFile
from banger.layout import Layout
from banger.oci.artifact import unsound
from banger.oci.artifact_client import ArtifactOrigin, find_artifact
from banger.oci.artifact_kernel import KernelManifest, KernelParts, parse_kernel_artifact
from banger.oci.artifact_tree import unpack_tree
from banger.oci.blobs import BlobStore
from banger.oci.documents import Descriptor, DocumentError
from banger.oci.platform import Platform
from banger.oci.reference import Reference
from banger.rootfs.ext4.skeleton import host_error

_SCHEME = "oci:"
#: Links that a distribution's module tree has into its header packages; they lead nowhere in a guest.
FOREIGN_LINKS = frozenset({b"build", b"source"})


class KernelArtifactSource:
    """Fetches a kernel artifact through the blob store, so that what is there already is not fetched again."""

    def __init__(
        self,
        layout: Layout,
        config: Config,
        env: Mapping[str, str] | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        """Create the source; for the arguments see :class:`ArtifactOrigin`."""
        self._origin = ArtifactOrigin(layout, config, env, blobs)

    def handles(self, request: KernelRequest) -> bool:
        """True for ``oci:…``."""
        return request.source.startswith(_SCHEME)

    def build(self, request: KernelRequest, staging_dir: Path, operation: Operation) -> BuiltKernel:
        """Fill ``staging_dir``.

        Raises:
            BangerError: as the registry says; ``invalid`` for what is no sound kernel for this host.
        """
        reference = Reference.parse(request.source.removeprefix(_SCHEME))
        what = f'kernel "{reference.familiar()}"'
        client = self._origin.registries.reader(reference, operation)
        with operation.step("resolve reference"):
            artifact, document = find_artifact(client, Platform.host(), "kernel", parse_kernel_artifact)
            with _refusing(what):
                parts, manifest = KernelParts.of(artifact), KernelManifest.parse(document)
                _check_platform(manifest)
        blobs = parts.present()
        paths = self._origin.fetch("kernel", blobs, client, operation)
        with operation.step("unpack"):
            by_digest = {blob.digest: path for blob, path in zip(blobs, paths, strict=True)}
            _unpack(parts, by_digest, staging_dir, operation.token)
        with _refusing(what):
            found = _agreed(manifest, staging.recognise(staging_dir / staging.KERNEL))
        source = f"{_SCHEME}{reference}"
        return staging.finish(staging_dir, found, source, request.cmdline or manifest.cmdline, operation)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except DocumentError as error:
        raise unsound(what, str(error)) from None


def _check_platform(manifest: KernelManifest) -> None:
    host, offered = Platform.host(), Platform.parse(manifest.platform)
    if host.rank(offered) is None:
        raise DocumentError(f"it is for {offered}, this host is {host}")


def _agreed(manifest: KernelManifest, found: KernelFile) -> KernelFile:
    """What the kernel's file says, completed by the manifest where it says nothing. A contradiction is refused."""
    release = found.version or manifest.version
    if (manifest.format, manifest.version or release) != (found.format, release):
        stated = f"{manifest.format} {manifest.version}".strip()
        raise DocumentError(f'its manifest says "{stated}", the kernel is "{found.format} {release}"')
    return replace(found, version=release)


def _unpack(parts: KernelParts, paths: Mapping[str, Path], staging_dir: Path, token: CancelToken) -> None:
    try:
        shutil.copyfile(paths[parts.image.digest], staging_dir / staging.KERNEL)
        if parts.initrd is not None:
            token.raise_if_cancelled()
            shutil.copyfile(paths[parts.initrd.digest], staging_dir / staging.INITRD)
        if parts.modules is not None:
            _unpack_modules(parts.modules, paths[parts.modules.digest], staging_dir / staging.MODULES, token)
    except OSError as error:
        raise host_error(error, staging_dir, sum(blob.size for blob in parts.present())) from error


def _unpack_modules(blob: Descriptor, path: Path, target: Path, token: CancelToken) -> None:
    target.mkdir()
    try:
        with path.open("rb", buffering=0) as archive:
            unpack_tree(archive, target, token, ignored_links=FOREIGN_LINKS)
    except BangerError as error:
        if error.kind is not ErrorKind.INVALID:
            raise
        raise BangerError(
            ErrorKind.INVALID, "the kernel's module archive is refused", subject=blob.digest, cause=error.message
        ) from error
