"""How long it takes from a registry to a bootable ext4, against the tools that people chain for it."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Comparison, interleaved, timed
from bench.peers import CACHE
from tests.support.daemon import banger_home
from tests.support.images import TAG, TestImage, bootstrap_tar, push
from tests.support.oci_layout import Layer, write_layout
from tests.support.registry import LocalRegistry, running_registry

NAME = f"bench/big:{TAG}"
LAYERS = 4
PACKAGES = ("build-essential", "git", "python3-numpy", "golang-go", "clang")
LEAST_BYTES = 300_000_000


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """``banger image pull`` (verified, checked, synced) against skopeo, umoci and mkfs one after the other."""
    layout = big_image()
    with running_registry(root / "registry") as registry:
        push(TestImage("big", layout), registry, NAME)
        medians = interleaved(
            {"banger": lambda: _banger(root, registry), "tools": lambda: _tools(root, registry)}, rounds
        )
    yield Comparison("pull to ext4 vs skopeo + umoci + mkfs.ext4 -d", medians["banger"], medians["tools"], 0.5)


def _banger(root: Path, registry: LocalRegistry) -> float:
    with banger_home(root) as home:
        home.run("daemon", "start").ok()
        started = time.perf_counter()
        home.run("image", "pull", registry.reference(NAME), "--name", "big").ok()
        return time.perf_counter() - started


def _tools(root: Path, registry: LocalRegistry) -> float:
    with tempfile.TemporaryDirectory(dir=root) as directory:
        work = Path(directory)
        source = f"docker://{registry.reference(NAME)}"
        seconds = timed(["skopeo", "copy", "-q", "--src-tls-verify=false", source, f"oci:{work}/layout:{TAG}"])
        seconds += timed(["umoci", "unpack", "--image", f"{work}/layout:{TAG}", work / "bundle"])
        image = work / "rootfs.ext4"
        image.touch()
        seconds += timed(["truncate", "-s", "4G", image])
        return seconds + timed(["mkfs.ext4", "-q", "-F", "-d", work / "bundle" / "rootfs", image])


def big_image() -> Path:
    """A development image of more than 300 MB compressed, in several layers; kept in the cache."""
    path = CACHE / "big-image"
    if path.exists():
        return path
    print("making an image of more than 300 MB", file=sys.stderr)
    CACHE.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".big-", dir=CACHE))
    try:
        tar = staging / "root.tar"
        bootstrap_tar(tar, PACKAGES)
        layers = [Layer(part) for part in _split(tar, LAYERS)]
        tar.unlink()
        write_layout(staging, TAG, layers, config={})
        size = sum(blob.stat().st_size for blob in (staging / "blobs" / "sha256").iterdir())
        if size < LEAST_BYTES:
            raise RuntimeError(f"the image has {size} bytes, {LEAST_BYTES} are wanted")
        staging.rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return path


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
