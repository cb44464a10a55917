"""Reading an OCI image layout from a tar file without unpacking it; nothing in it is trusted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

from banger.bundle.layout_archive import BLOBS, INDEX, MARKER
from banger.core.errors import BangerError, ErrorKind
from banger.oci.documents import (
    MANIFEST_TYPES,
    Descriptor,
    DocumentError,
    descriptors,
    parse_descriptor,
    parse_object,
    parse_versioned,
)
from banger.rootfs.limits import Budget, Limits
from banger.rootfs.reader import ChunkReader
from banger.rootfs.refusals import refused, shown
from banger.rootfs.tar import MemberKind, TarReader

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LARGEST_DOCUMENT = 4 << 20
_MOST_MANIFESTS = 64
_LAYOUT_VERSION = "1.0.0"
_LIMITS = Limits(entries=1024, path_bytes=256)


class LayoutArchive:
    """An open archive; a context manager. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` and find out where its blobs are.

        Raises:
            BangerError: ``not_found``, ``denied``; ``invalid`` if it is not an image layout.
        """
        self.path = path
        self._file = _open(path)
        try:
            self._places = _scan(self._file)
        except BangerError as error:
            self._file.close()
            raise _not_usable(path, str(error)) from error
        except BaseException:
            self._file.close()
            raise

    def manifest(self, fits: Callable[[Mapping[str, Any]], bool]) -> tuple[dict[str, Any], str]:
        """The one manifest of the index that ``fits``, and its digest. Raises ``invalid`` if it is not exactly one."""
        try:
            _check_layout_version(parse_object(self._document(MARKER)))
            index = parse_versioned(self._document(INDEX))
            items = descriptors(index, "manifests", _MOST_MANIFESTS)
            entries = [parse_descriptor(item, f"entry {i + 1}") for i, item in enumerate(items)]
            manifests = [(parse_versioned(self.read(entry)), entry.digest) for entry in entries if _is_manifest(entry)]
        except DocumentError as error:
            raise _not_usable(self.path, str(error)) from None
        fitting = [(document, digest) for document, digest in manifests if fits(document)]
        if len(fitting) != 1:
            raise _not_usable(self.path, f"{len(fitting)} of its {len(manifests)} manifests fit")
        return fitting[0]

    def read(self, blob: Descriptor) -> bytes:
        """A small blob, verified."""
        if blob.size > _LARGEST_DOCUMENT:
            raise _not_usable(self.path, f'a document "{blob.media_type}" is longer than {_LARGEST_DOCUMENT} bytes')
        with self.open_blob(blob) as stream:
            data = stream.read()
            stream.verify()
        return data

    def open_blob(self, blob: Descriptor) -> BlobStream:
        """A blob as a stream; the caller reads it to its end and has it verified then."""
        place = self._places.get(BLOBS + blob.digest.removeprefix("sha256:"))
        if place is None or place[1] != blob.size:
            raise _not_usable(self.path, f'it does not have the blob "{blob.digest}" of {blob.size} bytes')
        return BlobStream(self._file, place[0], blob, self.path)

    def _document(self, name: str) -> bytes:
        offset, size = self._places[name]
        if size > _LARGEST_DOCUMENT:
            raise _not_usable(self.path, f'"{name}" is longer than {_LARGEST_DOCUMENT} bytes')
        return os.pread(self._file.fileno(), size, offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class BlobStream(RawIOBase):
    """The bytes of one blob, hashed as they are read."""

    def __init__(self, file: BinaryIO, offset: int, blob: Descriptor, archive: Path) -> None:
        self._descriptor = file.fileno()
        self._offset = offset
        self._left = blob.size
        self._blob = blob
        self._archive = archive
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill some of ``buffer``; 0 at the end."""
        view = memoryview(buffer).cast("B")[: self._left]
        count = os.preadv(self._descriptor, [view], self._offset)
        self._digest.update(view[:count])
        self._offset += count
        self._left -= count
        return count

    def verify(self) -> None:
        """Raise ``invalid`` unless everything was read and has the blob's digest."""
        found = f"sha256:{self._digest.hexdigest()}"
        if self._left or found != self._blob.digest:
            raise _not_usable(self._archive, f'the blob "{self._blob.digest}" is damaged')


class _FileReader(ChunkReader):
    """The tar reader's view of a file that can seek: it passes over blobs without reading them."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(iter(()))
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def take(self, count: int) -> tuple[bytes, int]:
        return self.read(count), 0

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise refused("the archive is truncated")
        return data

    def skip(self, count: int) -> None:
        if self._file.tell() + count > self._size:
            raise refused("the archive is truncated")
        self._file.seek(count, os.SEEK_CUR)

    def at_end(self) -> bool:
        return self._file.tell() >= self._size

    def drain(self) -> None:
        self._file.seek(self._size)


def _scan(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Name to offset and size of every file in the archive."""
    reader = _FileReader(file)
    budget = Budget(_LIMITS)
    places: dict[str, tuple[int, int]] = {}
    for member in TarReader(reader, _LIMITS, end_marker=True):
        budget.spend_entry(len(member.name))
        if member.kind is MemberKind.FILE:
            name = member.name.decode("utf-8", "replace").removeprefix("./")
            if name in places:
                raise refused(f"the path {shown(member.name)} occurs twice")
            places[name] = (file.tell(), member.size)
        elif member.kind is not MemberKind.DIRECTORY:
            raise refused(f"entry {shown(member.name)} is a {member.kind.value}")
        reader.skip(member.size)
    if not {MARKER, INDEX} <= places.keys():
        raise refused(f'it has no "{MARKER}" and "{INDEX}" in it')
    return places


def _check_layout_version(marker: Mapping[str, Any]) -> None:
    """OCI image specification, "oci-layout file": the only version is 1.0.0."""
    version = marker.get("imageLayoutVersion", _LAYOUT_VERSION)
    if not isinstance(version, str) or version.partition(".")[0] != _LAYOUT_VERSION.partition(".")[0]:
        raise DocumentError(f"its imageLayoutVersion is {str(version)[:20]!r}, not {_LAYOUT_VERSION}")


def _is_manifest(entry: Descriptor) -> bool:
    return entry.media_type in MANIFEST_TYPES


def _open(path: Path) -> BinaryIO:
    try:
        # Non-blocking, in case it is a pipe: that would wait for a writer forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        kind = ErrorKind.NOT_FOUND if isinstance(error, FileNotFoundError) else ErrorKind.DENIED
        cause = error.strerror or str(error)
        raise BangerError(kind, f'cannot read "{path}"', subject=str(path), cause=cause) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_usable(path, "it is not a regular file")
    return cast("BinaryIO", os.fdopen(descriptor, "rb"))


def _not_usable(path: Path, cause: str) -> BangerError:
    return BangerError(ErrorKind.INVALID, f'"{path}" is not a bundle', subject=str(path), cause=cause)
