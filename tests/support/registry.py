"""A real registry on loopback, and small hand-built images to push into it.

    with running_registry(tmp_path) as registry:
        pushed = registry.push("test/app:1", [Layer({"etc/motd": b"hello\n"}), Layer({"bin/sh": Link("busybox")})])
        reference = registry.reference("test/app:1")       # 127.0.0.1:PORT/test/app:1

Everything is deterministic: the same layers give the same digests.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import zstandard

from banger.oci.documents import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from banger.oci.platform import Platform

needs_registry = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")

_START_TIMEOUT_S = 20.0
_REQUEST_TIMEOUT_S = 10.0
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class HardLink:
    """A hard link to an earlier path of the same layer."""

    target: str


@dataclass(frozen=True)
class Node:
    """A regular file (``content``) or a directory (``content=None``) with its attributes spelled out."""

    content: bytes | None = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    xattrs: Mapping[str, str] = field(default_factory=dict)


Entry = bytes | Link | HardLink | Node


@dataclass(frozen=True)
class Layer:
    """A layer: path to entry, in this order. ``bytes`` is a file of mode 0644, a path ending in ``/`` a directory."""

    entries: Mapping[str, Entry]
    compression: str = "gzip"

    def tar(self) -> bytes:
        """The uncompressed archive."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, entry in self.entries.items():
                info, content = _member(path, entry)
                archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    def blob(self) -> bytes:
        """The archive as it is stored: ``gzip``, ``zstd`` or ``plain``."""
        data = self.tar()
        if self.compression == "gzip":
            return gzip.compress(data, 6, mtime=0)
        if self.compression == "zstd":
            return zstandard.ZstdCompressor().compress(data)
        assert self.compression == "plain", self.compression
        return data

    def media_type(self, *, docker: bool) -> str:
        """The type a manifest gives it."""
        if self.compression == "plain":
            return _DOCKER_LAYER if docker else _OCI_LAYER
        return f"{_DOCKER_LAYER}.{self.compression}" if docker else f"{_OCI_LAYER}+{self.compression}"


@dataclass(frozen=True)
class BuiltImage:
    """An image as bytes: what a registry must hold so that it can be pulled."""

    manifest: bytes
    media_type: str
    blobs: Mapping[str, bytes]
    layer_digests: Sequence[str]
    platform: str

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return digest_of(self.manifest)

    def descriptor(self) -> dict[str, Any]:
        """The entry an index has for this image."""
        os_name, architecture, *variant = self.platform.split("/")
        stated = {"os": os_name, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.manifest), "platform": stated}


def digest_of(data: bytes) -> str:
    """``sha256:…``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def build_image(
    layers: Sequence[Layer],
    *,
    config: Mapping[str, Any] | None = None,
    platform: str = "",
    docker: bool = False,
    diff_ids: Any = ...,
) -> BuiltImage:
    """Put an image together.

    Args:
        layers: lowest first.
        config: the inner ``config`` object: ``Env``, ``Cmd``, ``User``, …
        platform: ``linux/arm64``; this host's by default.
        docker: use the media types of Docker's schema 2.
        diff_ids: what the configuration says in place of the truth.
    """
    platform = platform or str(Platform.host())
    os_name, architecture, *variant = platform.split("/")
    blobs = [layer.blob() for layer in layers]
    image_config = {
        "os": os_name,
        "architecture": architecture,
        **({"variant": variant[0]} if variant else {}),
        "config": dict(config or {}),
        "rootfs": {
            "type": "layers",
            "diff_ids": [digest_of(layer.tar()) for layer in layers] if diff_ids is ... else diff_ids,
        },
    }
    config_blob = to_json(image_config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": descriptor(config_blob, _DOCKER_CONFIG if docker else _OCI_CONFIG),
        "layers": [
            descriptor(blob, layer.media_type(docker=docker)) for blob, layer in zip(blobs, layers, strict=True)
        ],
    }
    return BuiltImage(
        manifest=to_json(manifest),
        media_type=str(manifest["mediaType"]),
        blobs={digest_of(blob): blob for blob in [config_blob, *blobs]},
        layer_digests=[digest_of(blob) for blob in blobs],
        platform=platform,
    )


def build_index(images: Sequence[BuiltImage], *, docker: bool = False) -> bytes:
    """The index (manifest list) over images of several platforms."""
    media_type = DOCKER_INDEX if docker else OCI_INDEX
    return to_json({"schemaVersion": 2, "mediaType": media_type, "manifests": [i.descriptor() for i in images]})


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    """What names ``data`` in a manifest."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def to_json(data: Any) -> bytes:
    """Compact JSON bytes."""
    return json.dumps(data, separators=(",", ":")).encode()


class LocalRegistry:
    """A running ``docker-registry``; made by :func:`running_registry`."""

    def __init__(self, port: int, login: tuple[str, str] | None) -> None:
        self.host = f"127.0.0.1:{port}"
        self.login = login
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = login

    def reference(self, name: str) -> str:
        """The full reference of ``name`` here."""
        return f"{self.host}/{name}"

    def push(
        self,
        name: str,
        layers: Sequence[Layer],
        *,
        config: Mapping[str, Any] | None = None,
        platform: str = "",
        docker: bool = False,
    ) -> BuiltImage:
        """Build an image (see :func:`build_image`) and push it as ``repository:tag``."""
        image = build_image(layers, config=config, platform=platform, docker=docker)
        self.push_image(name, image)
        return image

    def push_image(self, name: str, image: BuiltImage) -> None:
        """Push a built image as ``repository:tag``."""
        repository, _, tag = name.partition(":")
        for blob in image.blobs.values():
            self.push_blob(repository, blob)
        self.push_manifest(repository, tag or "latest", image.manifest, image.media_type)

    def push_index(self, name: str, images: Sequence[BuiltImage], *, docker: bool = False) -> str:
        """Push images of several platforms under one tag; returns the index's digest."""
        repository, _, tag = name.partition(":")
        for image in images:
            for blob in image.blobs.values():
                self.push_blob(repository, blob)
            self.push_manifest(repository, image.digest, image.manifest, image.media_type)
        index = build_index(images, docker=docker)
        self.push_manifest(repository, tag or "latest", index, DOCKER_INDEX if docker else OCI_INDEX)
        return digest_of(index)

    def push_blob(self, repository: str, data: bytes) -> str:
        """Upload one blob; returns its digest."""
        digest = digest_of(data)
        started = self._call("POST", f"/v2/{repository}/blobs/uploads/")
        location = started.headers["Location"]
        separator = "&" if "?" in location else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._call("PUT", f"{location}{separator}digest={digest}", data=data, headers=headers)
        return digest

    def push_manifest(self, repository: str, target: str, body: bytes, media_type: str) -> None:
        """Upload a manifest or an index under a tag or its digest."""
        self._call("PUT", f"/v2/{repository}/manifests/{target}", data=body, headers={"Content-Type": media_type})

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest, and with it the tags that point to it."""
        self._call("DELETE", f"/v2/{repository}/manifests/{digest}")

    def answers(self) -> bool:
        """True once the API is up (a demand for a login counts)."""
        try:
            return requests.get(f"http://{self.host}/v2/", timeout=1).status_code in (200, 401)
        except requests.RequestException:
            return False

    def _call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        url = path if path.startswith("http://") else f"http://{self.host}{path}"
        response = self._session.request(method, url, timeout=_REQUEST_TIMEOUT_S, **arguments)
        assert response.ok, f"{method} {url}: {response.status_code} {response.text}"
        return response


@contextmanager
def running_registry(directory: Path, login: tuple[str, str] | None = None) -> Iterator[LocalRegistry]:
    """Run a registry that keeps its blobs under ``directory``; with ``login`` it demands that user and password."""
    directory.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    config = directory / "registry.yml"
    config.write_text(json.dumps(_configuration(directory, port, login)))
    log = directory / "registry.log"
    with log.open("wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=output, stderr=output)
    try:
        registry = LocalRegistry(port, login)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not registry.answers():
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, f"docker-registry did not start:\n{log.read_text()}"
            time.sleep(0.02)
        yield registry
    finally:
        process.terminate()
        process.wait(timeout=10)


def _configuration(directory: Path, port: int, login: tuple[str, str] | None) -> dict[str, Any]:
    """The registry's YAML file, of which JSON is a subset."""
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "blobs")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if login:
        passwords = directory / "htpasswd"
        done = subprocess.run(["htpasswd", "-Bbn", *login], capture_output=True, text=True, check=True)
        passwords.write_text(done.stdout)
        config["auth"] = {"htpasswd": {"realm": "banger-test", "path": str(passwords)}}
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _member(path: str, entry: Entry) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(path.rstrip("/"))
    info.mode = 0o644
    if isinstance(entry, Link | HardLink):
        info.type = tarfile.SYMTYPE if isinstance(entry, Link) else tarfile.LNKTYPE
        info.linkname = entry.target
        return info, b""
    if isinstance(entry, bytes):
        directory = path.endswith("/")
        entry = Node(None if directory else entry, 0o755 if directory else 0o644)
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in entry.xattrs.items()}
    if entry.content is None:
        info.type = tarfile.DIRTYPE
        return info, b""
    info.size = len(entry.content)
    return info, entry.content
