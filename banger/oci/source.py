"""The image source for OCI references: registry to ext4, through the blob store and :mod:`banger.rootfs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from banger.config import Config
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltImage, ImageRequest, ResolvedImage
from banger.layout import Layout
from banger.oci.blobs import BlobStore
from banger.oci.credentials import CredentialStore
from banger.oci.fetching import Fetch
from banger.oci.platform import Platform
from banger.oci.reference import Reference
from banger.rootfs.build import Layer, build_rootfs
from banger.rootfs.limits import Limits

if TYPE_CHECKING:
    from banger.oci.manifest import PlatformImage
    from banger.oci.registry import RegistryClient

#: Schemes of other sources, such as ``mmdebstrap:bookworm``. ``name:tag`` looks the same but for these.
_OTHER_SCHEMES = re.compile(r"(?:mmdebstrap|apt|file|dir|bundle|bundle-file):")
_MIB = 1 << 20
_UNPACKED = "image.max_unpacked_mib"


@dataclass(frozen=True, slots=True)
class _Pull:
    """What :meth:`OciImageSource.resolve` hands on to ``build``."""

    client: RegistryClient
    image: PlatformImage
    size_bytes: int


class Bundles(Protocol):
    """The source of bundles, which a plain reference may turn out to mean once its manifest is read."""

    def adopt(
        self, client: RegistryClient, manifest: Mapping[str, Any], digest: str, request: ImageRequest
    ) -> ResolvedImage | None:
        """The bundle that a manifest describes; None if it describes none."""
        ...

    def made(self, resolved: ResolvedImage) -> bool:
        """True if ``resolved`` is for it to build."""
        ...

    def build(self, resolved: ResolvedImage, staging: Path, operation: Operation) -> BuiltImage:
        """Build what it adopted."""
        ...


class OciImageSource:
    """Images from registries. One per daemon: its blob store is what concurrent pulls share."""

    def __init__(
        self,
        layout: Layout,
        config: Config,
        env: Mapping[str, str] | None = None,
        bundles: Bundles | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        """Create the source; nothing is read or connected to.

        Args:
            layout: where the blobs are.
            config: settings of ``image`` and ``registry``.
            env: stands in for ``os.environ`` when the credential file is looked for.
            bundles: takes over what turns out to be a bundle; without it, that is no container image.
            blobs: the store that all sources share; by default one of its own.
        """
        self._config = config
        self._bundles = bundles
        self._blobs = blobs or BlobStore(layout.blobs)
        self._credentials = CredentialStore.configured(config.text("registry.credentials"), env)

    def handles(self, request: ImageRequest) -> bool:
        """True for everything that can be parsed as an image reference and belongs to no other source."""
        if _OTHER_SCHEMES.match(request.reference):
            return False
        try:
            Reference.parse(request.reference)
        except BangerError:
            return False
        return True

    def resolve(self, request: ImageRequest, operation: Operation) -> ResolvedImage:
        """Pin the reference to one platform's manifest; a few small requests."""
        # oras and requests take a quarter of a second to import: the daemon's start must not wait for them.
        from banger.oci import manifest  # noqa: PLC0415

        reference = Reference.parse(request.reference)
        platform = Platform.parse(request.platform)
        client = self._client(reference, request, operation)
        with operation.step("resolve reference"):
            document, digest = manifest.find_manifest(client, platform)
            if self._bundles and (found := self._bundles.adopt(client, document, digest, request)):
                return found
            image = manifest.read_image(client, platform, document, digest)
        size_bytes = request.size_bytes or self._config.number("image.size_mib") * _MIB
        token = _Pull(client, image, size_bytes)
        return ResolvedImage(str(reference), image.digest, str(image.platform), image.config, token)

    def build(self, resolved: ResolvedImage, staging: Path, operation: Operation) -> BuiltImage:
        """Fetch the layers that the blob store lacks, and build ``staging/rootfs.ext4`` from them as they arrive."""
        if self._bundles and self._bundles.made(resolved):
            return self._bundles.build(resolved, staging, operation)
        pull = resolved.token
        if not isinstance(pull, _Pull):
            raise BangerError(ErrorKind.INTERNAL, "the image was resolved by another source", subject=resolved.source)
        blobs = pull.image.layers
        self._blobs.lease(operation.id, blobs)
        fetch = Fetch(self._blobs, blobs, pull.client, self._config.number("image.parallel_downloads"))
        layers = [
            Layer(None, blob.size, arriving=fetch.arrivals[blob.digest], digest=blob.digest, diff_id=diff_id)
            for blob, diff_id in zip(blobs, pull.image.diff_ids, strict=True)
        ]
        rootfs = staging / "rootfs.ext4"
        with fetch.alongside(operation, "fetch layers"):
            stats = build_rootfs(layers, rootfs, size_bytes=pull.size_bytes, operation=operation, limits=self._limits())
        return BuiltImage(rootfs, stats.size_bytes, stats.disk_bytes, resolved.config, resolved.digest)

    def _limits(self) -> Limits:
        total_bytes = self._config.number(_UNPACKED) * _MIB
        limits = Limits(total_bytes=total_bytes, total_setting=_UNPACKED)
        return replace(limits, file_bytes=max(limits.file_bytes, total_bytes))

    def _client(self, reference: Reference, request: ImageRequest, operation: Operation) -> RegistryClient:
        from banger.oci.registry import Endpoint, RegistryClient, Timeouts  # noqa: PLC0415  # as above

        # A token of its own, because one failed layer stops the others but is not a cancelled operation.
        token = CancelToken()
        operation.token.on_cancel(lambda: token.cancel(operation.token.reason))
        return RegistryClient(
            reference,
            Endpoint.of(reference, self._config.text("registry.insecure"), plain_http=request.plain_http),
            token,
            find_credential=lambda: self._credentials.find(reference.domain, reference.repository),
            note=operation.note,
            timeouts=Timeouts.patient(self._config.seconds("registry.stall_timeout_s")),
        )
