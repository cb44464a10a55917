"""Fresh disks for VMs."""

from __future__ import annotations

from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.ext4.skeleton import make_empty

_LABEL_BYTES = 16
#: What a file can have on the file systems that hosts use (ext4's own limit with blocks of 4 KiB); a file system in
#: memory would promise more than mke2fs can fill.
_LARGEST_BYTES = 16 << 40


def make_disk(path: Path, size_bytes: int, label: str = "") -> None:
    """Make ``path``, which must not exist, a sparse disk with an empty ext4: some 10 ms and few blocks at any size.

    Args:
        path: the file to make; it is gone again after any failure.
        size_bytes: cut to whole blocks of 4 KiB.
        label: volume label of at most 16 bytes.

    Raises:
        BangerError: ``already_exists``; ``exhausted`` if the host's file system is full or cannot hold such a file;
            ``invalid`` for a size or label that ext4 cannot have; ``unavailable`` without e2fsprogs.
    """
    if len(label.encode()) > _LABEL_BYTES:
        raise BangerError(ErrorKind.INVALID, f'the label "{label}" is longer than {_LABEL_BYTES} bytes', subject=label)
    check_size(path, size_bytes)
    make_empty(path, size_bytes, label=label)


def check_size(path: Path, size_bytes: int) -> None:
    """Raise ``exhausted`` for a disk that no host can hold."""
    if size_bytes > _LARGEST_BYTES:
        message = f"a disk of {size_bytes} bytes is larger than any host has room for"
        raise BangerError(ErrorKind.EXHAUSTED, message, subject=str(path), hint="at most 16 TiB")
