"""From a reference to exactly one platform's manifest: own GET, hashed raw bytes, index walked by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ImageConfig
from banger.oci import failures
from banger.oci.documents import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    DocumentError,
    descriptors,
    kind_of,
    parse_descriptor,
    parse_layer,
    parse_versioned,
)
from banger.oci.image_config import LARGEST_CONFIG, parse_image_config
from banger.oci.platform import Platform
from banger.oci.registry import RegistryClient

LARGEST_MANIFEST = 4 << 20
MOST_LAYERS = 128
_MOST_PLATFORMS = 1024
_DEEPEST_NESTING = 3
_ACCEPT = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """One platform's image, pinned.

    Attributes:
        digest: of its manifest.
        layers: in the order they apply.
        diff_ids: of the layers, uncompressed; what they should be, not yet what they are.
    """

    digest: str
    platform: Platform
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    config: ImageConfig


def resolve(client: RegistryClient, wanted: Platform) -> PlatformImage:
    """Find the image for ``wanted`` that the client's reference means now.

    Raises:
        BangerError: ``not_found`` or ``denied`` as the registry says; ``invalid`` for no such platform, a digest that
            does not match, or a document that is not a sound image.
    """
    return _Resolver(client, wanted).resolve()


def find_manifest(client: RegistryClient, wanted: Platform, noun: str = "image") -> tuple[dict[str, Any], str]:
    """The manifest for ``wanted``, whatever it describes, and its digest; raises as :func:`resolve` does.

    ``noun`` is what errors call it. An index is followed; a manifest that stands alone is not asked for its platform.
    """
    return _Resolver(client, wanted, noun).find()


def read_image(client: RegistryClient, wanted: Platform, document: dict[str, Any], digest: str) -> PlatformImage:
    """The image that a manifest of :func:`find_manifest` describes; raises as :func:`resolve` does."""
    return _Resolver(client, wanted).image(document, digest)


class _Resolver:
    def __init__(self, client: RegistryClient, wanted: Platform, noun: str = "image") -> None:
        self._client = client
        self._wanted = wanted
        self._noun = noun
        self._name = client.reference.familiar()

    def resolve(self) -> PlatformImage:
        return self.image(*self.find())

    def find(self) -> tuple[dict[str, Any], str]:
        document, kind, digest = self._fetch(self._client.reference.target, None)
        for _ in range(_DEEPEST_NESTING):
            if kind not in INDEX_TYPES:
                return document, digest
            entry = self._choose(document)
            document, kind, digest = self._fetch(entry.digest, entry)
        if kind in INDEX_TYPES:
            raise self._invalid("its indexes are nested too deeply")
        return document, digest

    def _fetch(self, target: str, expected: Descriptor | None) -> tuple[dict[str, Any], str, str]:
        what = f'{self._noun} "{self._name}"'
        answer = self._client.get_document(f"manifests/{target}", _ACCEPT, LARGEST_MANIFEST, what)
        digest = "sha256:" + hashlib.sha256(answer.body).hexdigest()
        if target.startswith("sha256:") and digest != target:
            raise self._invalid(f"the registry sent {digest} for {target}")
        # Some registries report errors with status 200; their own words are better than "neither index nor manifest".
        if words := failures.errors_in(answer.body):
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f'registry "{self._client.reference.domain}" could not serve "{self._name}"',
                subject=str(self._client.reference),
                cause=words,
            )
        document = self._read(lambda: parse_versioned(answer.body))
        kind = self._read(lambda: kind_of(document, answer.content_type))
        # Which of the two families it is of makes no difference; whether it is an index does.
        if expected and (
            len(answer.body) != expected.size or (kind in INDEX_TYPES) != (expected.media_type in INDEX_TYPES)
        ):
            raise self._invalid(f"manifest {digest} has another size or type than its index says")
        return document, kind, digest

    def _choose(self, index: dict[str, Any]) -> Descriptor:
        entries = self._read(lambda: self._entries(index))
        offers = [Platform.of(entry.platform) for entry in entries]
        best = self._wanted.best(offers)
        if best is not None:
            return entries[best]
        unnamed = [entry for entry in entries if entry.platform is None]
        if len(unnamed) == 1:
            return unnamed[0]  # an entry need not say what it is for; the image's configuration does
        there = sorted({str(offer) for offer in offers} - {"unknown", "unknown/unknown"})
        raise self._no_variant(f"it has {', '.join(there)}" if there else "it has no image at all")

    def _entries(self, index: dict[str, Any]) -> list[Descriptor]:
        """The entries that are images; an index also lists signatures and attestations."""
        items = descriptors(index, "manifests", _MOST_PLATFORMS)
        entries = [parse_descriptor(item, f"entry {i + 1}") for i, item in enumerate(items)]
        return [entry for entry in entries if entry.media_type in MANIFEST_TYPES | INDEX_TYPES]

    def image(self, manifest: dict[str, Any], digest: str) -> PlatformImage:
        config_descriptor, layers = self._read(lambda: _parts_of(manifest))
        body = self._config(config_descriptor)
        try:
            config, platform, diff_ids = parse_image_config(body, len(layers))
        except DocumentError as error:
            raise self._invalid(f"its configuration is unsound: {error}") from None
        if platform.os and platform.architecture and self._wanted.rank(platform) is None:
            raise self._no_variant(f"it is for {platform}")
        platform = platform if platform.architecture else self._wanted
        return PlatformImage(digest, platform, tuple(layers), diff_ids, config)

    def _config(self, descriptor: Descriptor) -> bytes:
        what = f'the configuration of "{self._name}"'
        body = self._client.get_document(f"blobs/{descriptor.digest}", "*/*", LARGEST_CONFIG, what).body
        found = "sha256:" + hashlib.sha256(body).hexdigest()
        if len(body) != descriptor.size or found != descriptor.digest:
            sizes = f"{found} of {len(body)} bytes, not {descriptor.digest} of {descriptor.size}"
            raise self._invalid(f"its configuration does not match its digest: {sizes}")
        return body

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except DocumentError as error:
            raise self._invalid(f"its manifest is unsound: {error}") from None

    def _no_variant(self, cause: str) -> BangerError:
        message = f'{self._noun} "{self._name}" has no {self._wanted} variant'
        hint = "name one that it has: --platform OS/ARCHITECTURE"
        return failures.invalid(self._client.reference, message, cause, hint)

    def _invalid(self, cause: str) -> BangerError:
        return failures.invalid(self._client.reference, f'{self._noun} "{self._name}" cannot be used', cause)


def _parts_of(manifest: dict[str, Any]) -> tuple[Descriptor, Sequence[Descriptor]]:
    config = parse_descriptor(manifest.get("config"), "the configuration")
    if config.media_type not in CONFIG_TYPES:
        raise DocumentError(f'it is not a container image but "{config.media_type[:100]}"')
    if config.size > LARGEST_CONFIG:
        raise DocumentError(f"its configuration is longer than {LARGEST_CONFIG} bytes")
    items = descriptors(manifest, "layers", MOST_LAYERS)
    return config, [parse_layer(item, f"layer {i + 1}") for i, item in enumerate(items)]
