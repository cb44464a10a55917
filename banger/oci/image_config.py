"""The image configuration blob, reduced to what a VM uses. It is data: never a path or an argument on the host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from banger.core.models import ImageConfig
from banger.oci.documents import DocumentError, parse_object
from banger.oci.platform import Platform
from banger.rootfs.refusals import shown

LARGEST_CONFIG = 4 << 20
_MOST_ITEMS = 4096
_LONGEST_ITEM = 128 << 10
_LARGEST_TOTAL = 1 << 20
_LONGEST_PATH = 4096
_LONGEST_USER = 256
#: The two algorithms that the specification registers, lower-case as it demands.
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}\Z|sha512:[0-9a-f]{128}\Z")


class ImageDocument(NamedTuple):
    """What a configuration blob says.

    Attributes:
        diff_ids: digest of each layer's uncompressed archive, in the order of the manifest.
    """

    config: ImageConfig
    platform: Platform
    diff_ids: tuple[str, ...]


def parse_image_config(body: bytes, layers: int) -> ImageDocument:
    """Read a configuration blob (OCI image specification, "Image Configuration"; Docker's is the same).

    Args:
        body: the verified blob.
        layers: how many layers the manifest lists; the configuration must list as many.

    Raises:
        DocumentError: it is not such a document, or something in it is out of proportion.
    """
    data = parse_object(body)
    diff_ids = _diff_ids(data.get("rootfs"), layers)
    fields = data.get("config") or {}
    if not isinstance(fields, Mapping):
        raise DocumentError('its "config" is not an object')
    config = ImageConfig(
        env=tuple(item for item in _strings(fields, "Env") if item.partition("=")[0] and "=" in item),
        entrypoint=_command(fields, "Entrypoint"),
        cmd=_command(fields, "Cmd"),
        user=_text(fields, "User", _LONGEST_USER),
        workdir=_directory(_text(fields, "WorkingDir", _LONGEST_PATH)),
        labels=_labels(fields.get("Labels")),
        volumes=_volumes(fields.get("Volumes")),
    )
    return ImageDocument(config, Platform.of(data), diff_ids)


def _diff_ids(rootfs: Any, layers: int) -> tuple[str, ...]:
    """OCI image specification, "Layer DiffID". Layers that only have a history are in neither list."""
    value = rootfs.get("diff_ids") if isinstance(rootfs, Mapping) else None
    if value is None and not layers:  # how Go writes an empty list
        return ()
    if not isinstance(value, list) or len(value) != layers:
        count = len(value) if isinstance(value, list) else "no"
        raise DocumentError(f"it does not list the layers of the manifest: {count} diff_ids for {layers} layers")
    for i, diff_id in enumerate(value):
        if not isinstance(diff_id, str) or not _DIFF_ID.match(diff_id):
            raise DocumentError(
                f"the diff_id of layer {i + 1} of {layers} is not a digest: {shown(str(diff_id).encode())}"
            )
    return tuple(value)


def _strings(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = fields.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DocumentError(f'its "{key}" is not a list')
    _check_total(value, key)
    return tuple(_checked(item, key, _LONGEST_ITEM) for item in value)


def _command(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A command; a single text is one word of it, as Docker reads it."""
    value = fields.get(key)
    if isinstance(value, str):
        return (_checked(value, key, _LONGEST_ITEM),) if value else ()
    return _strings(fields, key)


def _text(fields: Mapping[str, Any], key: str, longest: int) -> str:
    value = _checked(fields.get(key) or "", key, longest)
    if not value.isprintable():
        raise DocumentError(f'its "{key}" has control characters')
    return value


def _labels(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DocumentError('its "Labels" is not an object')
    _check_total([*value, *value.values()], "Labels")
    # Go reads null as an empty text.
    return {
        _checked(k, "Labels", _LONGEST_ITEM): _checked("" if v is None else v, "Labels", _LONGEST_ITEM)
        for k, v in value.items()
    }


def _directory(text: str) -> str:
    """An absolute path; empty if there is none. What is relative is meant from the root."""
    return f"/{text}" if text and not text.startswith("/") else text


def _volumes(value: Any) -> tuple[str, ...]:
    """The directories that a container runtime would make for data; the object's values say nothing."""
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise DocumentError('its "Volumes" is not an object')
    _check_total([*value], "Volumes")
    return tuple(_directory(_text({"Volumes": path}, "Volumes", _LONGEST_PATH)) for path in sorted(value) if path)


def _check_total(items: list[Any], key: str) -> None:
    total = sum(len(item) for item in items if isinstance(item, str))
    if len(items) > _MOST_ITEMS or total > _LARGEST_TOTAL:
        raise DocumentError(f'its "{key}" is too large')


def _checked(value: Any, key: str, longest: int) -> str:
    if not isinstance(value, str):
        raise DocumentError(f'its "{key}" holds something that is not text')
    if len(value) > longest or "\0" in value:
        raise DocumentError(f'its "{key}" holds a text that is too long or has a NUL in it')
    return value
