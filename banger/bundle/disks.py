"""A file system image as a blob and back: sparse, compressed, and verified when it is unpacked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from banger.bundle.manifest import Disk
from banger.bundle.sparse import decode, encode
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.oci.artifact_zstd import ZstdBlob
from banger.rootfs.decompress import Compression, decompressed
from banger.rootfs.ext4.reader_superblock import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, read_superblock
from banger.rootfs.ext4.skeleton import host_error
from banger.rootfs.refusals import refused
from banger.rootfs.tools import check_file_system

Progress = Callable[[int], None]


def pack_disk(file: Path, sink: BinaryIO, token: CancelToken, progress: Progress) -> tuple[Disk, str, int]:
    """Write an ext4 image to ``sink`` as a compressed sparse stream.

    Args:
        file: the image; nobody may write to it meanwhile.
        sink: written from where it stands.
        token: cancels.
        progress: told how far into the image it has come.

    Returns:
        What the image is, and the blob's ``sha256:…`` and size. Equal content gives an equal blob.

    Raises:
        BangerError: ``invalid`` if it is no ext4; ``cancelled``.
        OSError: it cannot be read, or ``sink`` cannot be written.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        uuid = _uuid(descriptor)
        blob = ZstdBlob(sink, token)
        stats = encode(descriptor, blob.write, token, progress)
        digest, size = blob.finish()
    finally:
        os.close(descriptor)
    return Disk(stats.size_bytes, stats.sha256, uuid), digest, size


def unpack_disk(source: BinaryIO, disk: Disk, target: Path, token: CancelToken, progress: Progress) -> None:
    """Write the image that a blob holds to ``target``, checked and synced; no file is left after a failure.

    Args:
        source: the blob, read to its end; taken for hostile.
        disk: what must come out.
        target: the file to make.
        token: cancels.
        progress: told how far into the image it has come.

    Raises:
        BangerError: ``invalid`` for anything but a clean ext4 that ``disk`` describes; ``already_exists``;
            ``exhausted``; ``unavailable`` without e2fsprogs; ``cancelled``.
    """
    try:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise BangerError(ErrorKind.ALREADY_EXISTS, f'"{target}" already exists', subject=str(target)) from error
    try:
        _decompress(source, disk, descriptor, token, progress)
        _check(target, token)
        os.fsync(descriptor)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise host_error(error, target, disk.size_bytes) from error
        raise
    finally:
        os.close(descriptor)


def _decompress(source: BinaryIO, disk: Disk, descriptor: int, token: CancelToken, progress: Progress) -> None:
    compression, chunks = decompressed(source, lambda _: token.raise_if_cancelled())
    if compression is not Compression.ZSTD:
        raise refused("the blob is not compressed with zstd")
    stats = decode(chunks, descriptor, token, size_bytes=disk.size_bytes, progress=progress)
    if stats.sha256 != disk.sha256:
        raise refused(f"the content is sha256:{stats.sha256}, the manifest says sha256:{disk.sha256}")
    uuid = _uuid(descriptor)
    if uuid != disk.uuid:
        raise refused(f"the file system has the UUID {uuid}, the manifest says {disk.uuid}")


def _uuid(descriptor: int) -> str:
    raw = os.pread(descriptor, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET)
    return str(read_superblock(raw, os.fstat(descriptor).st_size).uuid)


def _check(target: Path, token: CancelToken) -> None:
    try:
        check_file_system(target, token)
    except BangerError as error:
        if error.kind is not ErrorKind.INTERNAL:
            raise
        # Somebody else wrote it, so this is no bug of ours.
        raise BangerError(ErrorKind.INVALID, "the file system is damaged", cause=error.cause) from error
