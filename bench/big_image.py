"""A development image of real packages in several layers, once with gzip and once with zstd; kept in the cache."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from bench.peers import CACHE
from tests.support.images import TAG, bootstrap_tar
from tests.support.oci_layout import Layer, write_layout

LAYERS = 4
PACKAGES = ("build-essential", "git", "python3-numpy", "golang-go")
#: What was promised for images of at least this much.
LEAST_UNPACKED_BYTES = 800_000_000


def gzip_layout() -> Path:
    """The image with layers as most builders make them."""
    return _cached("image-gzip", _bootstrap)


def zstd_layout() -> Path:
    """The same trees in zstd layers."""
    source = gzip_layout()
    return _cached("image-zstd", lambda target: _recompress(source, target))


def layers(layout: Path) -> list[Path]:
    """The blobs of an image's layers, lowest first."""
    manifest = _read(layout, _index(layout)["manifests"][0])
    return [_blob(layout, layer["digest"]) for layer in manifest["layers"]]


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    path = CACHE / name
    if path.exists():
        return path
    print(f"making {path}", file=sys.stderr)
    CACHE.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=CACHE))
    try:
        make(staging)
        staging.rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return path


def _bootstrap(target: Path) -> None:
    tar = target / "root.tar"
    bootstrap_tar(tar, PACKAGES)
    with tarfile.open(tar) as members:
        unpacked = sum(member.size for member in members if member.isreg())
    if unpacked < LEAST_UNPACKED_BYTES:
        raise RuntimeError(f"the image has {unpacked} bytes, {LEAST_UNPACKED_BYTES} are wanted")
    parts = [Layer(part) for part in _split(tar, LAYERS)]
    tar.unlink()
    write_layout(target, TAG, parts, config={})


def _split(tar: Path, parts: int) -> Iterator[bytes]:
    """The archive's entries in order, in ``parts`` archives of about the same size."""
    share = tar.stat().st_size // parts + 1
    with tarfile.open(tar) as source:
        entries = iter(source)
        for _ in range(parts):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as target:
                for entry in entries:
                    target.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
                    if buffer.tell() >= share:
                        break
            yield buffer.getvalue()


def _recompress(source: Path, target: Path) -> None:
    (target / "blobs" / "sha256").mkdir(parents=True)
    manifest = _read(source, _index(source)["manifests"][0])
    _add(target, _blob(source, manifest["config"]["digest"]).read_bytes())
    for layer in manifest["layers"]:
        tar = gzip.decompress(_blob(source, layer["digest"]).read_bytes())
        layer.update(_add(target, zstandard.ZstdCompressor(level=3).compress(tar)))
        layer["mediaType"] = layer["mediaType"].replace("+gzip", "+zstd")
    index = _index(source)
    index["manifests"][0] |= _add(target, json.dumps(manifest).encode())
    (target / "index.json").write_text(json.dumps(index))
    shutil.copy(source / "oci-layout", target)


def _index(layout: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((layout / "index.json").read_bytes())
    return index


def _read(layout: Path, descriptor: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_blob(layout, descriptor["digest"]).read_bytes())
    return document


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _add(layout: Path, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _blob(layout, digest).write_bytes(data)
    return {"digest": digest, "size": len(data)}
