"""Registry clients for artifacts, configured like those for images, and the requests that artifacts need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from banger.config import Config
from banger.core.cancel import CancelToken
from banger.core.operation import Operation
from banger.layout import Layout
from banger.oci.artifact import LARGEST_CONFIG, Artifact, digest_of, unsound
from banger.oci.blobs import BlobStore
from banger.oci.credentials import CredentialStore
from banger.oci.documents import Descriptor, DocumentError
from banger.oci.fetching import fetch_all
from banger.oci.platform import Platform
from banger.oci.reference import Reference

if TYPE_CHECKING:
    from banger.oci.push import PushClient
    from banger.oci.registry import RegistryClient

C = TypeVar("C")
Parse = Callable[[Mapping[str, Any], str], Artifact]
"""Checks a parsed manifest, given it and its digest; raises :class:`DocumentError`."""


@dataclass(frozen=True, slots=True)
class Registries:
    """How this installation talks to registries.

    Attributes:
        config: ``registry.insecure`` and ``registry.credentials``.
        env: stands in for ``os.environ`` when the credential file is looked for.
    """

    config: Config
    env: Mapping[str, str] | None = None

    def reader(self, reference: Reference, operation: Operation, *, plain_http: bool = False) -> RegistryClient:
        """A client that pulls ``reference``; connects to nothing yet."""
        # oras and requests take a quarter of a second to import: the daemon's start must not wait for them.
        from banger.oci.registry import RegistryClient  # noqa: PLC0415

        return self._connect(RegistryClient, reference, operation, plain_http=plain_http)

    def writer(self, reference: Reference, operation: Operation, *, plain_http: bool = False) -> PushClient:
        """A client that pushes to ``reference``."""
        from banger.oci.push import PushClient  # noqa: PLC0415  # as above

        return self._connect(PushClient, reference, operation, plain_http=plain_http)

    def _connect(self, client: Callable[..., C], reference: Reference, operation: Operation, *, plain_http: bool) -> C:
        from banger.oci.registry import Endpoint, Timeouts  # noqa: PLC0415  # as above

        credentials = CredentialStore.configured(self.config.text("registry.credentials"), self.env)
        # A token of its own, because one failed blob stops the others but is not a cancelled operation.
        token = CancelToken()
        operation.token.on_cancel(lambda: token.cancel(operation.token.reason))
        return client(
            reference,
            Endpoint.of(reference, self.config.text("registry.insecure"), plain_http=plain_http),
            token,
            find_credential=lambda: credentials.find(reference.domain, reference.repository),
            note=operation.note,
            timeouts=Timeouts.patient(self.config.seconds("registry.stall_timeout_s")),
        )


class ArtifactOrigin:
    """Where a source of artifacts gets them: registries, and the blob store that they end up in."""

    def __init__(self, layout: Layout, config: Config, env: Mapping[str, str] | None, blobs: BlobStore | None) -> None:
        """Nothing is read or connected to.

        Args:
            layout: where the blobs are.
            config: ``image.parallel_downloads``, ``registry.insecure``, ``registry.credentials``.
            env: stands in for ``os.environ`` when the credential file is looked for.
            blobs: the store that all sources share; by default one of its own.
        """
        self._parallel = config.number("image.parallel_downloads")
        self.blobs = blobs or BlobStore(layout.blobs)
        self.registries = Registries(config, env)

    def fetch(self, what: str, blobs: Sequence[Descriptor], client: RegistryClient, operation: Operation) -> list[Path]:
        """Lease and fetch the blobs of ``what``, a ``bundle`` or a ``kernel``; their paths in the same order."""
        self.blobs.lease(operation.id, blobs)
        with operation.step(f"fetch {what}") as step:
            return fetch_all(self.blobs, blobs, client, self._parallel, step.update)


def find_artifact(client: RegistryClient, wanted: Platform, noun: str, parse: Parse) -> tuple[Artifact, bytes]:
    """Resolve the client's reference to one artifact and fetch its config document; two or three small requests.

    Args:
        client: knows the reference.
        wanted: the platform to choose from an index.
        noun: what errors call it: ``kernel``, ``bundle``.
        parse: checks the manifest.

    Returns:
        The artifact and its verified config document.

    Raises:
        BangerError: as the registry says; ``invalid`` for anything unsound.
    """
    from banger.oci.manifest import find_manifest  # noqa: PLC0415  # as above

    return read_artifact(client, *find_manifest(client, wanted, noun), noun, parse)


def read_artifact(
    client: RegistryClient, document: Mapping[str, Any], digest: str, noun: str, parse: Parse
) -> tuple[Artifact, bytes]:
    """The same, of a manifest that was fetched already."""
    what = f'{noun} "{client.reference.familiar()}"'
    try:
        artifact = parse(document, digest)
    except DocumentError as error:
        raise unsound(what, str(error), str(client.reference)) from None
    path = f"blobs/{artifact.config.digest}"
    body = client.get_document(path, "*/*", LARGEST_CONFIG, f"the configuration of {what}").body
    found, wanted = digest_of(body), artifact.config
    if len(body) != wanted.size or found != wanted.digest:
        sizes = f"{found} of {len(body)} bytes, not {wanted.digest} of {wanted.size}"
        raise unsound(what, f"its configuration does not match its digest: {sizes}", str(client.reference))
    return artifact, body
