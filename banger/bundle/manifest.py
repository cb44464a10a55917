"""The format of a bundle: media types, the manifest document, and the roles of its blobs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from banger.core.errors import BangerError
from banger.core.models import ImageConfig
from banger.core.names import check_artifact_name
from banger.core.ports import KernelReference
from banger.core.units import GIB
from banger.core.wire.sizes import DefaultSizes
from banger.oci.artifact import Artifact, Fields, is_artifact, parse_artifact, to_json
from banger.oci.documents import Descriptor, DocumentError, parse_object
from banger.oci.image_config import parse_image_config

ARTIFACT_TYPE = "application/vnd.banger.bundle.v1"
MANIFEST_TYPE = "application/vnd.banger.bundle.manifest.v1+json"
ROOTFS_TYPE = "application/vnd.banger.bundle.rootfs.v1.ext4.sparse+zstd"
SEED_TYPE = "application/vnd.banger.bundle.seed.v1.ext4.sparse+zstd"

#: As large as a pulled image can get.
_LARGEST_DISK = 64 * GIB
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
#: Printable and without a blank: nothing in it can be taken for an option or for a second line.
_KERNEL_SOURCES = (
    re.compile(r"oci:[A-Za-z0-9][!-~]*\Z"),
    re.compile(r"apt:[a-z0-9][a-z0-9+.-]+\Z"),
    re.compile(r"https://[!-~]+#sha256=[0-9a-fA-F]{64}\Z"),
)
_PLATFORM = re.compile(r"linux/[a-z0-9_]{1,16}(?:/[a-z0-9_.]{1,16})?\Z")


@dataclass(frozen=True, slots=True)
class Disk:
    """One of a bundle's file systems.

    Attributes:
        size_bytes: of the image, holes included.
        sha256: hex digest of its sparse stream, which names its content (see :mod:`banger.bundle.sparse`).
        uuid: of the ext4.
    """

    size_bytes: int
    sha256: str
    uuid: str


@dataclass(frozen=True, slots=True)
class BundleManifest:
    """The config document of a bundle.

    Attributes:
        name: of the image where the bundle was made; may be empty.
        source: where the image came from, for people.
        image_digest: what the image's content was known by there, for people.
        platform: ``linux/amd64``.
        created: RFC 3339, when the image was made.
    """

    name: str
    source: str
    image_digest: str
    platform: str
    created: str
    rootfs: Disk
    seed: Disk | None = None
    config: ImageConfig = field(default_factory=ImageConfig)
    kernel: KernelReference = field(default_factory=KernelReference)
    defaults: DefaultSizes = field(default_factory=DefaultSizes)

    def to_bytes(self) -> bytes:
        """As it travels."""
        return to_json(
            {
                "name": self.name,
                "source": self.source,
                "image_digest": self.image_digest,
                "platform": self.platform,
                "created": self.created,
                "rootfs": asdict(self.rootfs),
                **({"seed": asdict(self.seed)} if self.seed else {}),
                "config": config_object(self.config),
                "kernel": {key: value for key, value in asdict(self.kernel).items() if value},
                "defaults": {key: value for key, value in asdict(self.defaults).items() if value},
            }
        )

    @classmethod
    def parse(cls, body: bytes) -> BundleManifest:
        """Read what somebody sent. Raises :class:`DocumentError`."""
        data = parse_object(body)
        fields = Fields(data)
        platform = fields.text("platform", 48)
        if not _PLATFORM.match(platform):
            raise DocumentError('its "platform" is not written like linux/amd64')
        kernel, defaults = fields.fields("kernel"), fields.fields("defaults")
        return cls(
            name=_name(fields, "image"),
            source=fields.text("source", 4096, ""),
            image_digest=fields.text("image_digest", 256, ""),
            platform=platform,
            created=fields.text("created", 40, ""),
            rootfs=_disk(fields, "rootfs"),
            seed=_disk(fields, "seed") if data.get("seed") else None,
            config=_image_config(data.get("config")),
            kernel=KernelReference(_name(kernel, "kernel"), kernel.digest("digest"), _source(kernel)),
            defaults=DefaultSizes(
                cpus=defaults.number("cpus", 1024, 0),
                memory_mib=defaults.number("memory_mib", 1 << 24, 0),
                disk_mib=defaults.number("disk_mib", 1 << 30, 0),
            ),
        )


@dataclass(frozen=True, slots=True)
class BundleParts:
    """The blobs of a bundle; its manifest and its layers agree on whether there is a seed."""

    rootfs: Descriptor
    seed: Descriptor | None

    @classmethod
    def of(cls, artifact: Artifact, manifest: BundleManifest) -> BundleParts:
        """Sort the layers by media type. Raises :class:`DocumentError`; layers of other types are left alone."""
        parts = cls(artifact.only((ROOTFS_TYPE,), "root file system"), artifact.maybe((SEED_TYPE,), "work seed"))
        if (parts.seed is None) != (manifest.seed is None):
            raise DocumentError("its manifest and its layers do not agree about a work seed")
        return parts

    def present(self) -> list[Descriptor]:
        """Those that are there."""
        return [self.rootfs, self.seed] if self.seed else [self.rootfs]


def is_bundle(manifest: Mapping[str, Any]) -> bool:
    """True if a parsed manifest is that of a bundle."""
    return is_artifact(manifest, ARTIFACT_TYPE, MANIFEST_TYPE)


def parse_bundle_artifact(manifest: Mapping[str, Any], digest: str) -> Artifact:
    """Check the manifest of a bundle. Raises :class:`DocumentError`."""
    return parse_artifact(manifest, digest, ARTIFACT_TYPE, MANIFEST_TYPE)


def config_object(config: ImageConfig) -> dict[str, Any]:
    """The ``config`` object of an OCI image configuration."""
    return {
        "Env": config.env,
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "User": config.user,
        "WorkingDir": config.workdir,
        "Labels": dict(sorted(config.labels.items())),
        **({"Volumes": {path: {} for path in config.volumes}} if config.volumes else {}),
    }


def _disk(fields: Fields, key: str) -> Disk:
    disk = fields.fields(key)
    found = Disk(disk.number("size_bytes", _LARGEST_DISK), disk.text("sha256", 64), disk.text("uuid", 36))
    if not _SHA256.match(found.sha256) or not _UUID.match(found.uuid):
        raise DocumentError(f'its "{key}" has a malformed sha256 or uuid')
    return found


def _name(fields: Fields, noun: str) -> str:
    name = fields.text("name", 255, "")
    try:
        if name:
            check_artifact_name(name, noun)
    except BangerError as error:
        raise DocumentError(error.message) from None
    return name


def _source(fields: Fields) -> str:
    source = fields.text("source", 1024, "")
    if source and not is_kernel_source(source):
        raise DocumentError('its "source" of the kernel is none that a kernel can be had from')
    return source


def is_kernel_source(source: str) -> bool:
    """True for what means the same everywhere: a registry's artifact, a package, a file with its sum."""
    return any(pattern.match(source) for pattern in _KERNEL_SOURCES)


def _image_config(value: Any) -> ImageConfig:
    """The command, environment and so on: written as in an OCI image configuration, and read by the same code."""
    return parse_image_config(json.dumps({"config": value}).encode(), 0).config
