"""The format of a kernel artifact: media types, the manifest document, and the roles of its blobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from banger.core import clock
from banger.core.models import Kernel
from banger.core.units import GIB, MIB
from banger.oci.artifact import Artifact, Fields, parse_artifact, to_json
from banger.oci.documents import Descriptor, DocumentError, parse_object

ARTIFACT_TYPE = "application/vnd.banger.kernel.v1"
MANIFEST_TYPE = "application/vnd.banger.kernel.manifest.v1+json"
IMAGE_TYPE = "application/vnd.banger.kernel.image.v1"
INITRD_TYPE = "application/vnd.banger.kernel.initrd.v1"
MODULES_ZSTD_TYPE = "application/vnd.banger.kernel.modules.v1.tar+zstd"
MODULES_GZIP_TYPE = "application/vnd.banger.kernel.modules.v1.tar+gzip"

FORMATS = ("bzimage", "elf")
#: The kernel itself is read into memory to be recognised.
_LARGEST_IMAGE = 512 * MIB
_LARGEST_INITRD = 2 * GIB
_LARGEST_MODULES = 4 * GIB
#: The boot protocol of x86 takes 2047 bytes, of which banger's own arguments need a part.
_LONGEST_CMDLINE = 1024
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}\Z")
_PLATFORM = re.compile(r"linux/[a-z0-9_]{1,16}(?:/[a-z0-9_.]{1,16})?\Z")


@dataclass(frozen=True, slots=True)
class KernelManifest:
    """The config document of a kernel artifact: what one small request tells before anything large is fetched.

    Attributes:
        version: release, as ``uname -r`` says it; empty if the file does not tell.
        platform: ``linux/amd64``.
        format: ``bzimage`` or ``elf``.
        cmdline: arguments this kernel wants besides banger's own.
        created: RFC 3339.
        size_bytes: of all files, unpacked.
    """

    version: str
    platform: str
    format: str
    cmdline: str
    created: str
    size_bytes: int

    @classmethod
    def of(cls, kernel: Kernel) -> KernelManifest:
        """The document for a kernel of this host."""
        created = clock.rfc3339(kernel.created_at)
        return cls(kernel.version, kernel.platform, kernel.format, kernel.cmdline, created, kernel.size_bytes)

    def to_bytes(self) -> bytes:
        """As it travels."""
        return to_json(
            {
                "version": self.version,
                "platform": self.platform,
                "format": self.format,
                "cmdline": self.cmdline,
                "created": self.created,
                "size_bytes": self.size_bytes,
            }
        )

    @classmethod
    def parse(cls, body: bytes) -> KernelManifest:
        """Read what a registry sent. Raises :class:`DocumentError`."""
        fields = Fields(parse_object(body))
        manifest = cls(
            version=fields.text("version", 64, ""),
            platform=fields.text("platform", 48),
            format=fields.text("format", 16),
            cmdline=fields.text("cmdline", _LONGEST_CMDLINE, ""),
            created=fields.text("created", 40, ""),
            size_bytes=fields.number("size_bytes", _LARGEST_IMAGE + _LARGEST_INITRD + _LARGEST_MODULES, 0),
        )
        if manifest.version and not _RELEASE.match(manifest.version):
            raise DocumentError('its "version" is not a kernel release')
        if not _PLATFORM.match(manifest.platform):
            raise DocumentError('its "platform" is not written like linux/amd64')
        if manifest.format not in FORMATS:
            raise DocumentError(f'its "format" is none of {", ".join(FORMATS)}')
        if not manifest.cmdline.isascii():
            raise DocumentError('its "cmdline" is not ASCII')
        return manifest


@dataclass(frozen=True, slots=True)
class KernelParts:
    """The blobs of a kernel artifact."""

    image: Descriptor
    modules: Descriptor | None
    initrd: Descriptor | None

    @classmethod
    def of(cls, artifact: Artifact) -> KernelParts:
        """Sort the layers by media type. Raises :class:`DocumentError`; layers of other types are left alone."""
        parts = cls(
            artifact.only((IMAGE_TYPE,), "kernel image"),
            artifact.maybe((MODULES_ZSTD_TYPE, MODULES_GZIP_TYPE), "module archive"),
            artifact.maybe((INITRD_TYPE,), "initrd"),
        )
        limits = ((parts.image, _LARGEST_IMAGE), (parts.modules, _LARGEST_MODULES), (parts.initrd, _LARGEST_INITRD))
        for blob, most in limits:
            if blob is not None and blob.size > most:
                raise DocumentError(f'its "{blob.media_type}" is larger than {most} bytes')
        return parts

    def present(self) -> list[Descriptor]:
        """Those that are there."""
        return [blob for blob in (self.image, self.modules, self.initrd) if blob is not None]


def parse_kernel_artifact(manifest: Mapping[str, Any], digest: str) -> Artifact:
    """Check the manifest of a kernel artifact. Raises :class:`DocumentError`."""
    return parse_artifact(manifest, digest, ARTIFACT_TYPE, MANIFEST_TYPE)
