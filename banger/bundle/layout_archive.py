"""An OCI image layout as one tar file, written in a single pass.

Format: OCI image specification 1.1, "Image Layout": ``oci-layout``, ``index.json`` and ``blobs/sha256/<hex>``; tools
call the archive ``oci-archive``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from banger.oci.artifact import LocalBlob, to_json
from banger.oci.documents import OCI_INDEX
from banger.rootfs.tar import BLOCK
from banger.rootfs.tar_writer import END, MemberHeader

MARKER = "oci-layout"
INDEX = "index.json"
BLOBS = "blobs/sha256/"
REF_NAME = "org.opencontainers.image.ref.name"
_VERSION = to_json({"imageLayoutVersion": "1.0.0"})
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)
_LARGEST_OCTAL = 8**11 - 1

Packer = Callable[[BinaryIO], tuple[str, int]]
"""Writes a blob to a file from where that stands; returns the blob's ``sha256:…`` and size."""


class LayoutWriter:
    """Writes one archive to a seekable file. Equal blobs in equal order give equal bytes."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin; ``file`` is written from where it stands and stays open."""
        self._file = file
        self._add(MARKER, _VERSION)

    def put(self, media_type: str, title: str, pack: Packer) -> LocalBlob:
        """Add a blob whose size and digest, and so whose name, are known only once it is written."""
        start = self._file.tell()
        self._file.write(bytes(BLOCK))
        digest, size = pack(self._file)
        self._file.write(bytes(-size % BLOCK))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_header(BLOBS + digest.removeprefix("sha256:"), size))
        self._file.seek(end)
        return LocalBlob(media_type, digest, size, title=title)

    def finish(self, manifest: LocalBlob, small: list[LocalBlob], entry: Mapping[str, Any]) -> None:
        """Add the blobs that are in memory, the manifest and the index, and end the archive.

        Args:
            manifest: what the index names.
            small: further blobs, such as the configuration.
            entry: what the index says of the manifest besides its descriptor.
        """
        for blob in (*small, manifest):
            self._add(BLOBS + blob.digest.removeprefix("sha256:"), blob.data)
        described = {**manifest.descriptor(), **entry}
        self._add(INDEX, to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described]}))
        self._file.write(END)

    def _add(self, name: str, data: bytes) -> None:
        self._file.write(_header(name, len(data)) + data + bytes(-len(data) % BLOCK))


def _header(name: str, size: int) -> bytes:
    """Always one block, so that room for it can be left: beyond 8 GiB the size is written in base 256, as GNU does."""
    header = MemberHeader(name.encode(), b"0", 0o644, size=min(size, _LARGEST_OCTAL)).pack()
    if size <= _LARGEST_OCTAL:
        return header
    raw = bytearray(header)
    raw[_SIZE] = b"\x80" + size.to_bytes(11, "big")
    raw[_CHECKSUM] = b" " * 8
    raw[_CHECKSUM] = b"%06o\0 " % sum(raw)
    return bytes(raw)
