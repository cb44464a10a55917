"""The image source of bundles: ``bundle:REFERENCE`` in a registry, ``bundle-file:/PATH`` for an exported file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from banger.bundle.contents import ROOTFS, SEED
from banger.bundle.disks import unpack_disk
from banger.bundle.layout_reader import LayoutArchive
from banger.bundle.manifest import BundleManifest, BundleParts, Disk, is_bundle, parse_bundle_artifact
from banger.config import Config
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltImage, ImageRequest, ResolvedImage
from banger.layout import Layout
from banger.oci.artifact import Artifact, unsound
from banger.oci.artifact_client import ArtifactOrigin, find_artifact, read_artifact
from banger.oci.blobs import BlobStore
from banger.oci.documents import Descriptor, DocumentError
from banger.oci.platform import Platform
from banger.oci.reference import Reference

if TYPE_CHECKING:
    from banger.oci.registry import RegistryClient

_REGISTRY_SCHEME, _FILE_SCHEME = "bundle:", "bundle-file:"
#: What is known of a bundle besides its disks; kept beside them.
METADATA = "bundle.json"


@dataclass(frozen=True, slots=True)
class _Found:
    """What :meth:`BundleImageSource.resolve` hands on to ``build``. One of ``client`` and ``archive`` is set."""

    parts: BundleParts
    manifest: BundleManifest
    document: bytes
    client: RegistryClient | None = None
    archive: Path | None = None


class BundleImageSource:
    """Fetches a bundle through the blob store, or reads it from a file where it lies."""

    def __init__(
        self,
        layout: Layout,
        config: Config,
        env: Mapping[str, str] | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        """Create the source; for the arguments see :class:`ArtifactOrigin`."""
        self._origin = ArtifactOrigin(layout, config, env, blobs)

    def handles(self, request: ImageRequest) -> bool:
        """True for ``bundle:…`` and ``bundle-file:…``."""
        return request.reference.startswith((_REGISTRY_SCHEME, _FILE_SCHEME))

    def resolve(self, request: ImageRequest, operation: Operation) -> ResolvedImage:
        """Read the manifest and the document that describes the image."""
        wanted = Platform.parse(request.platform)
        _check_size(request)
        with operation.step("resolve reference"):
            if request.reference.startswith(_FILE_SCHEME):
                return self._resolve_file(request.reference, wanted)
            reference = Reference.parse(request.reference.removeprefix(_REGISTRY_SCHEME))
            client = self._origin.registries.reader(reference, operation, plain_http=request.plain_http)
            artifact, document = find_artifact(client, wanted, "bundle", parse_bundle_artifact)
            return _resolved(f"{_REGISTRY_SCHEME}{reference}", artifact, document, wanted, client=client)

    def adopt(
        self, client: RegistryClient, manifest: Mapping[str, Any], digest: str, request: ImageRequest
    ) -> ResolvedImage | None:
        """The bundle that a manifest describes which another source came upon; ``None`` if it describes none.

        The result is for :meth:`build` of this source; :meth:`made` recognises it.
        """
        if not is_bundle(manifest):
            return None
        _check_size(request)
        wanted = Platform.parse(request.platform)
        artifact, document = read_artifact(client, manifest, digest, "bundle", parse_bundle_artifact)
        return _resolved(str(client.reference), artifact, document, wanted, client=client)

    def made(self, resolved: ResolvedImage) -> bool:
        """True if ``resolved`` is for this source to build."""
        return isinstance(resolved.token, _Found)

    def build(self, resolved: ResolvedImage, staging: Path, operation: Operation) -> BuiltImage:
        """Make ``rootfs.ext4``, ``seed.ext4`` if the bundle has one, and ``bundle.json``, all checked and synced."""
        found = resolved.token
        if not isinstance(found, _Found):
            raise BangerError(ErrorKind.INTERNAL, "the image was resolved by another source", subject=resolved.source)
        if found.client is not None:
            self._origin.fetch("bundle", found.parts.present(), found.client, operation)
        crashpoint("bundle.build:blobs-here")
        self._unpack(found.parts.rootfs, found.manifest.rootfs, staging / ROOTFS, found, operation)
        crashpoint("bundle.build:rootfs-unpacked")
        if found.parts.seed is not None and found.manifest.seed is not None:
            self._unpack(found.parts.seed, found.manifest.seed, staging / SEED, found, operation)
        (staging / METADATA).write_bytes(found.document + b"\n")
        crashpoint("bundle.build:unpacked")
        stat = (staging / ROOTFS).stat()
        return BuiltImage(staging / ROOTFS, stat.st_size, stat.st_blocks * 512, resolved.config, resolved.digest)

    def _resolve_file(self, source: str, wanted: Platform) -> ResolvedImage:
        path = Path(source.removeprefix(_FILE_SCHEME))
        if not path.is_absolute():
            message = f'"{path}" is not an absolute path'
            hint = f"write {_FILE_SCHEME}{path.absolute()}"
            raise BangerError(ErrorKind.USAGE, message, subject=source, hint=hint)
        with LayoutArchive(path) as archive:
            manifest, digest = archive.manifest(is_bundle)
            try:
                artifact = parse_bundle_artifact(manifest, digest)
            except DocumentError as error:
                raise unsound(f'bundle "{path}"', str(error), source) from None
            document = archive.read(artifact.config)
        return _resolved(source, artifact, document, wanted, archive=path)

    def _unpack(self, blob: Descriptor, disk: Disk, target: Path, found: _Found, operation: Operation) -> None:
        with operation.step(f"unpack {target.name}") as step, self._open(blob, found) as source:
            try:
                unpack_disk(source, disk, target, operation.token, lambda done: step.update(done, disk.size_bytes))
            except BangerError as error:
                if error.kind is not ErrorKind.INVALID:
                    raise
                message = f'"{target.name}" of the bundle is refused'
                raise BangerError(ErrorKind.INVALID, message, subject=blob.digest, cause=str(error)) from error

    @contextmanager
    def _open(self, blob: Descriptor, found: _Found) -> Iterator[BinaryIO]:
        if found.archive is None:
            with self._origin.blobs.path(blob.digest).open("rb", buffering=0) as file:
                yield file
            return
        with LayoutArchive(found.archive) as archive, archive.open_blob(blob) as stream:
            yield cast("BinaryIO", stream)
            stream.verify()


def _check_size(request: ImageRequest) -> None:
    """Refuse to give a bundle's file system another size: it is taken as it is, digest and all."""
    if request.size_bytes:
        raise BangerError(
            ErrorKind.USAGE, f'"{request.reference}" is a bundle, whose file system has its size already',
            subject=request.reference, hint="leave out --size; banger run --disk SIZE gives a VM room to write",
        )  # fmt: skip


def _resolved(source: str, artifact: Artifact, document: bytes, wanted: Platform, **place: Any) -> ResolvedImage:
    try:
        manifest = BundleManifest.parse(document)
        parts = BundleParts.of(artifact, manifest)
        _check_platform(manifest, wanted)
    except DocumentError as error:
        raise unsound(f'bundle "{source}"', str(error), source) from None
    found = _Found(parts, manifest, document, **place)
    return ResolvedImage(
        source,
        artifact.digest,
        manifest.platform,
        manifest.config,
        token=found,
        kernel=manifest.kernel,
        defaults=manifest.defaults,
    )


def _check_platform(manifest: BundleManifest, wanted: Platform) -> None:
    if wanted.rank(Platform.parse(manifest.platform)) is None:
        raise DocumentError(f"it is for {manifest.platform}, not for {wanted}")
