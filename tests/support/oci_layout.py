"""OCI image layouts written by hand, down to every tar header: oddities that no image builder would emit on demand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MTIME = 1_700_000_000
_LAYER = "application/vnd.oci.image.layer.v1.tar"


class TarBuilder:
    """One layer's tar archive, entry by entry."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  # open until finish()

    def finish(self) -> bytes:
        """The archive."""
        self._tar.close()
        return self._buffer.getvalue()

    def file(self, name: str, data: bytes, *, xattrs: Mapping[str, str] | None = None, **attributes: int) -> None:
        """A regular file."""
        entry = self._entry(name, tarfile.REGTYPE, 0o644, attributes)
        entry.size = len(data)
        entry.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
        self._tar.addfile(entry, io.BytesIO(data))

    def directory(self, name: str, **attributes: int) -> None:
        """A directory."""
        self._tar.addfile(self._entry(name, tarfile.DIRTYPE, 0o755, attributes))

    def symlink(self, name: str, target: str) -> None:
        """A symbolic link."""
        entry = self._entry(name, tarfile.SYMTYPE, 0o777, {})
        entry.linkname = target
        self._tar.addfile(entry)

    def link(self, name: str, target: str) -> None:
        """A hard link to an entry of this or a lower layer."""
        entry = self._entry(name, tarfile.LNKTYPE, 0o644, {})
        entry.linkname = target
        self._tar.addfile(entry)

    def fifo(self, name: str, **attributes: int) -> None:
        """A named pipe."""
        self._tar.addfile(self._entry(name, tarfile.FIFOTYPE, 0o644, attributes))

    def device(self, name: str, major: int, minor: int, **attributes: int) -> None:
        """A character device."""
        entry = self._entry(name, tarfile.CHRTYPE, 0o600, attributes)
        entry.devmajor, entry.devminor = major, minor
        self._tar.addfile(entry)

    @staticmethod
    def _entry(name: str, kind: bytes, mode: int, attributes: Mapping[str, int]) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name)
        entry.type = kind
        entry.mode = attributes.get("mode", mode)
        entry.uid, entry.gid = attributes.get("uid", 0), attributes.get("gid", 0)
        entry.mtime = attributes.get("mtime", MTIME)
        return entry


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's tar archive and how to store it: ``gzip`` or ``none``."""

    tar: bytes
    compression: str = "gzip"


def write_layout(
    target: Path,
    tag: str,
    layers: Sequence[Layer],
    config: Mapping[str, Any],
    architecture: str = "amd64",
    base: Path | None = None,
) -> None:
    """Write an image of ``layers`` (on top of the image in the layout ``base``) as an OCI layout directory."""
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    descriptors, diff_ids = _base_layers(base, blobs)
    for layer in layers:
        compressed = layer.compression == "gzip"
        data = gzip.compress(layer.tar, 6, mtime=0) if compressed else layer.tar
        descriptors.append(_add(blobs, data, _LAYER + ("+gzip" if compressed else "")))
        diff_ids.append("sha256:" + hashlib.sha256(layer.tar).hexdigest())
    image = {
        "created": "2024-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "test"} for _ in diff_ids],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _add(blobs, json.dumps(image).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    described = _add(blobs, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    index = {
        "schemaVersion": 2,
        "manifests": [{**described, "annotations": {"org.opencontainers.image.ref.name": tag}}],
    }
    (target / "index.json").write_text(json.dumps(index))
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _base_layers(base: Path | None, blobs: Path) -> tuple[list[dict[str, Any]], list[str]]:
    if base is None:
        return [], []
    index = json.loads((base / "index.json").read_text())
    manifest = _read(base, index["manifests"][0])
    for descriptor in manifest["layers"]:
        name = descriptor["digest"].removeprefix("sha256:")
        shutil.copyfile(base / "blobs" / "sha256" / name, blobs / name)
    return manifest["layers"], _read(base, manifest["config"])["rootfs"]["diff_ids"]


def _read(layout: Path, descriptor: Mapping[str, Any]) -> Any:
    return json.loads((layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes())


def _add(blobs: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
