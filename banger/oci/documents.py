"""Strict reading of JSON from a registry: typed fields, checked descriptors, no duplicate keys.

The shapes are those of the OCI image specification 1.1 and of Docker's manifest schema 2, which differ only in the
names of their media types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from banger.oci.reference import is_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
#: The last three are what some registries and builders put there for want of anything better; Docker takes them too.
CONFIG_TYPES = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
        "application/octet-stream",
        "application/json",
        "text/html",
    }
)
#: Of layers that a registry need not hold: base layers of Windows, and whatever somebody's licence forbids to share.
_OUTSIDE_TYPES = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_LAYER_TYPES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    *_OUTSIDE_TYPES,
)
#: OCI writes ``+gzip``, Docker ``.gzip``, and tools that turn one into the other mix them.
_PACKED = re.compile(r"(?:[+.](?:gzip|zstd))?\Z")
#: What every manifest and index says of itself; 1 was Docker's first form.
_SCHEMA_VERSION = 2
_LARGEST_BLOB = 1 << 40


class DocumentError(ValueError):
    """What is wrong with a document, as a clause to put after its name."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names one piece of content exactly: type, ``sha256:…`` and size in bytes.

    Attributes:
        may_be_missing: it is of a kind that need not be in the registry.
    """

    media_type: str
    digest: str
    size: int
    platform: Mapping[str, Any] | None = None
    may_be_missing: bool = False


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse one JSON object. A key given twice is refused: other tools may read the other value."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise DocumentError("it has a key twice")
        return result

    try:
        data = json.loads(body, object_pairs_hook=unique)
    except DocumentError:
        raise
    except (ValueError, RecursionError):
        raise DocumentError("it is not JSON") from None
    if not isinstance(data, dict):
        raise DocumentError("it is not a JSON object")
    return data


def parse_descriptor(data: Any, where: str) -> Descriptor:
    """Check the parts of a descriptor that become part of a URL, a path or a length."""
    if not isinstance(data, Mapping):
        raise DocumentError(f"{where} is not a descriptor")
    media_type, digest, size = data.get("mediaType"), data.get("digest"), data.get("size")
    if not isinstance(media_type, str) or not media_type:
        raise DocumentError(f"{where} has no media type")
    if not is_digest(digest):
        raise DocumentError(f"{where} has no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST_BLOB:
        raise DocumentError(f"{where} has no sensible size")
    platform = data.get("platform")
    return Descriptor(media_type, str(digest), size, platform if isinstance(platform, Mapping) else None)


def parse_layer(data: Any, where: str) -> Descriptor:
    """A layer's descriptor: a tar archive.

    How it is packed is not read from its type: its bytes tell. Nor does it matter whether the type or ``urls`` say that
    it may be had elsewhere: this registry is asked for it, as it is for every layer, and nobody else.
    """
    layer = parse_descriptor(data, where)
    media_type = layer.media_type.partition(";")[0].strip().lower()
    if not any(_PACKED.match(media_type.removeprefix(known)) for known in _LAYER_TYPES if media_type.startswith(known)):
        raise DocumentError(f'{where} is of an unknown type, "{layer.media_type[:100]}"')
    return replace(layer, may_be_missing=media_type.startswith(_OUTSIDE_TYPES) or bool(data.get("urls")))


def descriptors(data: Mapping[str, Any], key: str, limit: int) -> list[Any]:
    """The list under ``key``, of at most ``limit`` entries, none of them parsed yet."""
    value = data.get(key)
    if not isinstance(value, list):
        raise DocumentError(f'it has no list "{key}"')
    if len(value) > limit:
        raise DocumentError(f"it has {len(value)} {key}, more than {limit}")
    return value


def parse_versioned(body: bytes) -> dict[str, Any]:
    """Parse a manifest or an index; one that says of itself that it is of another form is refused."""
    data = parse_object(body)
    if "fsLayers" in data:
        raise DocumentError("it is of Docker's schema 1, which is not supported any more")
    version = data.get("schemaVersion", _SCHEMA_VERSION)
    if type(version) is not int or version != _SCHEMA_VERSION:
        raise DocumentError(f"its schemaVersion is {str(version)[:20]!r}, not {_SCHEMA_VERSION}")
    return data


def kind_of(data: Mapping[str, Any], content_type: str) -> str:
    """The media type that the document, its header and its contents agree on.

    Reading the same bytes once as an index and once as a manifest is an attack (CVE-2021-41190), so any
    disagreement is an error.
    """
    announced = content_type.partition(";")[0].strip().lower()
    stated = data.get("mediaType") or ""
    known = INDEX_TYPES | MANIFEST_TYPES
    if stated and (not isinstance(stated, str) or stated not in known):
        raise DocumentError(f'it is of type "{str(stated)[:100]}", which is not an image')
    if stated and announced in known and stated != announced:
        raise DocumentError(f'the registry calls it "{announced}", it calls itself "{stated}"')
    is_index, is_manifest = "manifests" in data, "layers" in data or "config" in data
    if is_index and is_manifest:
        raise DocumentError("it is an index and a manifest at once")
    if not is_index and not is_manifest:
        raise DocumentError("it is neither an index nor a manifest")
    kind = stated or (announced if announced in known else "") or (OCI_INDEX if is_index else OCI_MANIFEST)
    if (kind in INDEX_TYPES) != is_index:
        raise DocumentError(f'it calls itself "{kind}" but is not built like one')
    return str(kind)
