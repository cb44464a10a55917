"""A snapshot as one file: an OCI image layout in a tar archive, each file of it a compressed sparse stream."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from banger.bundle.export import appearing, host_errors
from banger.bundle.layout_archive import LayoutWriter, Packer
from banger.bundle.layout_reader import LayoutArchive
from banger.bundle.sparse import decode, encode
from banger.core import codec
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import ArchivedFile, SnapshotRecord
from banger.oci.artifact import Artifact, LocalBlob, is_artifact, manifest_bytes, parse_artifact, to_json
from banger.oci.artifact_zstd import ZstdBlob
from banger.oci.documents import OCI_MANIFEST, DocumentError, parse_object
from banger.rootfs.decompress import Compression, decompressed
from banger.rootfs.refusals import refused

ARTIFACT_TYPE = "application/vnd.banger.snapshot.v1"
RECORD_TYPE = "application/vnd.banger.snapshot.record.v1+json"
FILE_TYPE = "application/vnd.banger.snapshot.file.v1.sparse+zstd"
_PATH = re.compile(r"(?:disk|machine)/[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}\Z")
_MOST_FILES, _LARGEST = 16, 1 << 44
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class LocalSnapshotArchives:
    """Implements :class:`banger.core.ports.SnapshotArchives` with files of this host."""

    def sums(self, files: Mapping[str, Path], operation: Operation) -> Mapping[str, str]:
        """Read each of them once."""
        return {what: _content(path, lambda _: None, operation.token)[1] for what, path in files.items()}

    def export(self, record: SnapshotRecord, directory: Path, target: Path, operation: Operation) -> None:
        """Write it in one pass; the record, which says what was written, comes last."""
        name = record.snapshot.name
        paths = sorted(path for path in directory.glob("*/*") if path.is_file())
        total, before, files = sum(path.stat().st_size for path in paths), 0, list[ArchivedFile]()
        with host_errors(f'export snapshot "{name}"', total, target), appearing(target) as file:
            writer, layers = LayoutWriter(file), list[LocalBlob]()
            with operation.step("pack") as step:
                for path in paths:
                    shown = str(path.relative_to(directory))
                    packer = _packer(path, shown, files, operation.token)
                    begin = file.tell()
                    blob = writer.put(FILE_TYPE, f"{shown}.sparse.zst", packer)
                    if any(blob.digest == other.digest for other in layers):  # equal files are one blob
                        file.seek(begin)
                        file.truncate()
                    layers.append(blob)
                    before += path.stat().st_size
                    step.update(before, total)
            document = to_json(codec.to_plain(replace(record, files=tuple(files))))
            config = LocalBlob.of_bytes(RECORD_TYPE, document)
            manifest = LocalBlob.of_bytes(OCI_MANIFEST, manifest_bytes(ARTIFACT_TYPE, config, layers, {}))
            writer.finish(manifest, [config], {"artifactType": ARTIFACT_TYPE})

    def read(self, path: Path) -> SnapshotRecord:
        """Only what it says; its files are looked at when they are unpacked."""
        with LayoutArchive(path) as archive:
            return _parsed(archive)[0]

    def unpack(self, path: Path, into: Path, operation: Operation) -> None:
        """One file after the other, each no larger than it says."""
        with LayoutArchive(path) as archive:
            record, artifact = _parsed(archive)
            needed = sum(file.size_bytes for file in record.files)
            with host_errors(f'unpack "{path}"', needed, into), operation.step("unpack") as step:
                done = 0
                for file, blob in zip(record.files, artifact.layers, strict=True):
                    target = into / file.path
                    target.parent.mkdir(mode=0o700, exist_ok=True)
                    with archive.open_blob(blob) as stream:
                        try:
                            _unpack(cast("BinaryIO", stream), file, target, operation.token)
                            stream.verify()
                        except BangerError as error:
                            raise _no_snapshot(path, f"{file.path}: {error}", error) from error
                    target.chmod(0o400)
                    done += file.size_bytes
                    step.update(done, needed)


def _packer(path: Path, shown: str, files: list[ArchivedFile], token: CancelToken) -> Packer:
    def pack(sink: BinaryIO) -> tuple[str, int]:
        blob = ZstdBlob(sink, token)
        size, sha256 = _content(path, blob.write, token)
        files.append(ArchivedFile(shown, size, sha256))
        return blob.finish()

    return pack


def _content(path: Path, write: Callable[[bytes], object], token: CancelToken) -> tuple[int, str]:
    """Write a file as a sparse stream; its size, and what names its content."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stats = encode(descriptor, write, token)
    finally:
        os.close(descriptor)
    return stats.size_bytes, stats.sha256


def _unpack(source: BinaryIO, file: ArchivedFile, target: Path, token: CancelToken) -> None:
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        compression, chunks = decompressed(source, lambda _: token.raise_if_cancelled())
        if compression is not Compression.ZSTD:
            raise refused("it is not compressed with zstd")
        stats = decode(chunks, descriptor, token, size_bytes=file.size_bytes)
    finally:
        os.close(descriptor)
    if stats.sha256 != file.sha256:
        raise refused(f"its content is sha256:{stats.sha256}, the record says sha256:{file.sha256}")


def _parsed(archive: LayoutArchive) -> tuple[SnapshotRecord, Artifact]:
    """The record, checked, and the manifest that has a layer for each of its files, in their order."""
    manifest, digest = archive.manifest(lambda found: is_artifact(found, ARTIFACT_TYPE, RECORD_TYPE))
    try:
        artifact = parse_artifact(manifest, digest, ARTIFACT_TYPE, RECORD_TYPE)
        plain: Any = parse_object(archive.read(artifact.config))
        record = codec.from_plain(SnapshotRecord, plain, tolerant=True)
        _check(record, artifact)
    except (DocumentError, BangerError) as error:
        raise _no_snapshot(archive.path, str(error)) from error
    return record, artifact


def _check(record: SnapshotRecord, artifact: Artifact) -> None:
    paths = [file.path for file in record.files]
    if len(paths) != len(artifact.layers) or not 0 < len(paths) <= _MOST_FILES or len(set(paths)) != len(paths):
        raise DocumentError("its record and its layers do not agree")
    for file in record.files:
        if not _PATH.match(file.path) or not 0 <= file.size_bytes <= _LARGEST or not _SHA256.match(file.sha256):
            raise DocumentError(f"a snapshot has no such file: {file.path[:80]!r}")


def _no_snapshot(path: Path, cause: str, error: BangerError | None = None) -> BangerError:
    if error is not None and error.kind is not ErrorKind.INVALID:
        return error
    message = f'"{path}" is not a snapshot, or damaged'
    return BangerError(ErrorKind.INVALID, message, subject=str(path), cause=cause)
