"""The work seed: a small file system with the content of an image's ``/root``, from which home disks are made.

The image's own file system is read, never mounted, and its links are followed only inside it. What lets somebody in or
tells what somebody did stays behind: every VM made of the image would inherit it.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from banger.core.operation import Operation
from banger.core.units import GIB, KIB, MIB, format_size
from banger.rootfs.build import Layer, build_rootfs
from banger.rootfs.ext4.reader import Ext4Reader, Inode
from banger.rootfs.refusals import refused, shown
from banger.rootfs.tree_tar import ChunkStream, TreeTar, empty_tar

_DEFAULT_BYTES = 256 * MIB
#: A home directory that holds more than this was not meant to be copied for every VM.
_MAX_CONTENT_BYTES = 16 * GIB
#: Room per file when the size is chosen: its inode is one per 16 KiB, its last block half empty.
_ENTRY_BYTES = 32 * KIB
_EMPTY_MODE = 0o700

_LEFT_OUT = re.compile(
    rb"""(?:.*/)?(?:
        \.ssh/authorized_keys2?             # who may log in
      | ssh_host_\w+_key(?:\.pub)?          # what tells a machine from another
      | dropbear_\w+_host_key(?:\.pub)?
      | \.\w*_history | \.lesshst | \.viminfo | \.Xauthority | \.ICEauthority
    )\Z""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class WorkSeedStats:
    """What was made.

    Attributes:
        size_bytes: apparent size of the seed.
        disk_bytes: what it occupies on the host.
        entries: files, directories and links in it, its root included.
        file_bytes: sizes of its files.
        left_out: how many keys, histories and things that no archive holds (sockets, say) stayed behind.
    """

    size_bytes: int
    disk_bytes: int
    entries: int
    file_bytes: int
    left_out: int


def make_work_seed(
    rootfs: Path, target: Path, *, operation: Operation, source: bytes = b"/root", size_bytes: int = 0
) -> WorkSeedStats:
    """Write the seed of an image. Equal images give equal seeds.

    Args:
        rootfs: an ext4 image that nobody writes to; only read.
        target: the file to make; replaced if it exists, gone after any failure.
        operation: gets the steps of :func:`~banger.rootfs.build.build_rootfs`; its token cancels.
        source: the directory whose content becomes the seed's root. If the image has none the seed is empty.
        size_bytes: size of the file system. 0 chooses 256 MiB, or more if the content needs it; the file is sparse.

    Raises:
        BangerError: ``invalid`` if the image cannot be read or its home directory is unreasonably large; ``exhausted``
            if the content does not fit or the host's disk is full; ``unavailable`` without e2fsprogs; ``cancelled``.
    """
    with Ext4Reader(rootfs) as image:
        start = image.find(source)
        if start is None or not start.is_directory:
            archive, wanted = None, _DEFAULT_BYTES
            chunks = iter([empty_tar(_EMPTY_MODE)])
        else:
            archive = TreeTar(image, start, _keep, operation.token, _MAX_CONTENT_BYTES)
            wanted = _generous_size(image, start, operation)
            chunks = archive.chunks()
        built = build_rootfs(
            [Layer(stream=cast("BinaryIO", ChunkStream(chunks)))],
            target,
            operation=operation,
            size_bytes=size_bytes or wanted,
            reserved_uuid=uuid.uuid5(image.superblock.uuid, "banger work seed"),
        )
    left_out = archive.stats.left_out if archive else 0
    return WorkSeedStats(built.size_bytes, built.disk_bytes, built.entries, built.file_bytes, left_out)


def _keep(path: bytes, inode: Inode) -> bool:
    return inode.is_directory or not _LEFT_OUT.match(path)


def _generous_size(image: Ext4Reader, start: Inode, operation: Operation) -> int:
    """A size that the directory's content fits into for sure: twice its data, and room for as many inodes."""
    wanted = 0
    for path, inode in image.walk(start):
        operation.token.raise_if_cancelled()
        wanted += _ENTRY_BYTES + (2 * inode.size if inode.is_file else 0)
        if wanted > 2 * _MAX_CONTENT_BYTES:
            raise refused(f"with {shown(path)} the home directory holds more than {format_size(_MAX_CONTENT_BYTES)}")
    return max(_DEFAULT_BYTES, -(-wanted // MIB) * MIB)
