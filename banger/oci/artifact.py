"""OCI artifacts: content other than container images in the same manifests (OCI image specification 1.1).

An artifact has a type, one small JSON document as its *config* blob, and layers that are told apart by media type only:
titles and other annotations are for people and for other tools.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.oci.documents import OCI_MANIFEST, Descriptor, DocumentError, descriptors, parse_descriptor
from banger.oci.reference import is_digest

#: Larger than any real config document of ours by far; it is held in memory.
LARGEST_CONFIG = 1 << 20
TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"
CREATED = "org.opencontainers.image.created"
_MOST_LAYERS = 16
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalBlob:
    """A blob of this host on its way to a registry or an archive: a file, or a few bytes in memory.

    Attributes:
        file: where it is; ``None`` if it is ``data``.
        title: what tools that unpack artifacts name it.
    """

    media_type: str
    digest: str
    size: int
    file: Path | None = None
    data: bytes = field(default=b"", repr=False)
    title: str = ""

    @classmethod
    def of_bytes(cls, media_type: str, data: bytes, title: str = "") -> LocalBlob:
        """A blob in memory."""
        return cls(media_type, digest_of(data), len(data), None, data, title)

    @classmethod
    def of_file(cls, media_type: str, file: Path, token: CancelToken, title: str = "") -> LocalBlob:
        """A blob that is a whole file; reads all of it once. Raises ``OSError``, ``cancelled``."""
        with file.open("rb", buffering=0) as source:
            digest, size = hash_stream(source, token)
        return cls(media_type, digest, size, file, b"", title)

    def descriptor(self) -> dict[str, Any]:
        """What names it in a manifest."""
        plain: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return plain | ({"annotations": {TITLE: self.title}} if self.title else {})


@dataclass(frozen=True, slots=True)
class Artifact:
    """A parsed artifact manifest; ``digest`` is that of the manifest itself."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    def only(self, media_types: Collection[str], what: str) -> Descriptor:
        """The layer of one of these types; raises :class:`DocumentError` if there is none or more than one."""
        found = self.maybe(media_types, what)
        if found is None:
            raise DocumentError(f"it has no {what}")
        return found

    def maybe(self, media_types: Collection[str], what: str) -> Descriptor | None:
        """The same, or ``None`` if there is none."""
        found = [layer for layer in self.layers if layer.media_type in media_types]
        if len(found) > 1:
            raise DocumentError(f"it has more than one {what}")
        return found[0] if found else None


def manifest_bytes(
    artifact_type: str, config: LocalBlob, layers: Sequence[LocalBlob], annotations: Mapping[str, str]
) -> bytes:
    """The manifest of an artifact; equal input gives equal bytes and so an equal digest."""
    return to_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": config.descriptor(),
            "layers": [layer.descriptor() for layer in layers],
            "annotations": {key: value for key, value in sorted(annotations.items()) if value},
        }
    )


def is_artifact(manifest: Mapping[str, Any], artifact_type: str, config_type: str) -> bool:
    """True if a manifest is of this type.

    Registries from before ``artifactType`` drop nothing, but tools that copy artifacts may: the config's media type
    then says the same (OCI image specification, "Guidelines for Artifact Usage").
    """
    stated = manifest.get("artifactType")
    config = manifest.get("config")
    return stated == artifact_type or (
        not stated and isinstance(config, Mapping) and config.get("mediaType") == config_type
    )


def parse_artifact(manifest: Mapping[str, Any], digest: str, artifact_type: str, config_type: str) -> Artifact:
    """Check a manifest that a registry or an archive gave.

    Raises:
        DocumentError: it is another kind of thing, or one of its descriptors is unsound.
    """
    if not is_artifact(manifest, artifact_type, config_type):
        stated = manifest.get("artifactType") or "a container image or an unknown artifact"
        raise DocumentError(f'it is not "{artifact_type}" but {str(stated)[:100]}')
    config = parse_descriptor(manifest.get("config"), "the configuration")
    if config.media_type != config_type:
        raise DocumentError(f'its configuration is of type "{config.media_type[:100]}", not "{config_type}"')
    if config.size > LARGEST_CONFIG:
        raise DocumentError(f"its configuration is longer than {LARGEST_CONFIG} bytes")
    items = descriptors(manifest, "layers", _MOST_LAYERS)
    layers = tuple(parse_descriptor(item, f"layer {i + 1}") for i, item in enumerate(items))
    if any(item.get("urls") for item in items):
        raise DocumentError("a layer lies outside the registry")
    return Artifact(digest, config, layers)


class Fields:
    """Typed access to a JSON object from outside. Unknown keys are ignored, as OCI wants of every reader."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def text(self, key: str, longest: int, default: str | None = None) -> str:
        """One printable line. Raises :class:`DocumentError` if it is missing without a default, or unsound."""
        value = self._data.get(key, default)
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            raise DocumentError(f'its "{key}" is not a line of at most {longest} characters')
        return value

    def number(self, key: str, most: int, default: int | None = None) -> int:
        """A whole number from 0 to ``most``."""
        value = self._data.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise DocumentError(f'its "{key}" is not a whole number up to {most}')
        return value

    def digest(self, key: str) -> str:
        """``sha256:…``, or empty if there is none."""
        value = self._data.get(key) or ""
        if value and not is_digest(value):
            raise DocumentError(f'its "{key}" is not a sha256 digest')
        return str(value)

    def fields(self, key: str) -> Fields:
        """The object under ``key``; an absent one is empty."""
        value = self._data.get(key) or {}
        if not isinstance(value, Mapping):
            raise DocumentError(f'its "{key}" is not an object')
        return Fields(value)


def to_json(data: Any) -> bytes:
    """Compact JSON in the order given."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(data: bytes) -> str:
    """``sha256:…`` of bytes in memory."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hash_stream(source: BinaryIO, token: CancelToken) -> tuple[str, int]:
    """``sha256:…`` and length of what ``source`` holds from here on."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK_BYTES):
        token.raise_if_cancelled()
        digest.update(chunk)
        size += len(chunk)
    return f"sha256:{digest.hexdigest()}", size


def unsound(what: str, cause: str, subject: str = "") -> BangerError:
    """The ``invalid`` error for an artifact that must not be used."""
    return BangerError(ErrorKind.INVALID, f"{what} cannot be used", subject=subject, cause=cause)


def must_be_readable(body: bytes, parse: Callable[[bytes], object], what: str) -> bytes:
    """``body``, unless whoever pulls it would refuse it: better to be told before it is published.

    Raises:
        BangerError: ``invalid``, saying why.
    """
    try:
        parse(body)
    except DocumentError as error:
        raise unsound(what, f"nobody could pull it: {error}") from None
    return body
