"""Images for the ext4 reader: by mke2fs, by hand, and what the reader says of them in the words of the other tests."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.ext4.reader_superblock import Superblock, read_superblock
from banger.rootfs.refusals import refused
from tests.support.rootfs import Facts, Listing, _with_links

#: For tests that run e2fsprogs.
needs_e2fsprogs = pytest.mark.skipif(
    shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin") is None, reason="e2fsprogs is not installed"
)
_ENVIRONMENT = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}


def run(*arguments: str | Path, accept: tuple[int, ...] = (0,)) -> str:
    """Run a tool of e2fsprogs; its output."""
    done = subprocess.run(arguments, capture_output=True, text=True, env=_ENVIRONMENT, check=False)
    assert done.returncode in accept, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def mke2fs(target: Path, *arguments: str, source: Path | None = None, size: str = "16M") -> Path:
    """Make a file system, filled from a directory of the host if there is one."""
    filling = ["-d", str(source)] if source else []
    run("mke2fs", "-q", "-F", *arguments, *filling, target, size)
    return target


def debugfs(image: Path, *requests: str) -> None:
    """Change an image by hand."""
    for request in requests:
        run("debugfs", "-w", "-R", request, image)


def listing(path: Path) -> Listing:
    """All that the reader finds in an image, ``lost+found`` aside."""
    with Ext4Reader(path) as image:
        return listing_of(image)


def listing_of(image: Ext4Reader) -> Listing:
    """All that the reader finds."""
    found: Listing = {}
    inodes: dict[bytes, int] = {}
    for name, inode in image.walk(keep=lambda path, _: path != b"lost+found"):
        data = b""
        if inode.is_file:
            with image.open(inode) as reader:
                data = reader.readall()
        elif inode.is_symlink:
            data = image.readlink(inode)
        inodes[name] = inode.number
        found[name] = Facts(
            stat.S_IFMT(inode.mode),
            stat.S_IMODE(inode.mode),
            inode.uid,
            inode.gid,
            inode.mtime_ns,
            links=0 if inode.is_directory else inode.nlink,
            size=0 if inode.is_directory else inode.size,
            data=data,
            device=inode.rdev,
            xattrs=image.xattrs(inode),
        )
    return _with_links(found, inodes)


def set_times(root: Path, seconds: int = 1_700_000_000) -> None:
    """Give a whole directory of the host one time in whole seconds, which is all that mke2fs copies."""
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files, "."]:
            os.utime(Path(folder, name), (seconds, seconds), follow_symlinks=False)


class FakeDevice:
    """Blocks by number, all others zeros; stands in for an image file."""

    def __init__(self, superblock: Superblock, blocks: Mapping[int, bytes]) -> None:
        self.superblock = superblock
        self.block_bytes = superblock.block_bytes
        self.blocks = blocks
        self.reads = 0

    def read_blocks(self, first: int, count: int) -> bytes:
        """Whole blocks."""
        self.check_range(first, count)
        self.reads += 1
        zeros = bytes(self.block_bytes)
        return b"".join(self.blocks.get(number, zeros) for number in range(first, first + count))

    def check_range(self, first: int, count: int) -> None:
        """As the real one does."""
        if count < 1 or not 0 < first <= self.superblock.blocks - count:
            raise refused(f"block {first}")


def superblock_bytes(
    *,
    blocks: int = 1 << 20,
    shift: int = 2,
    incompat: int = 0x2C2,
    inodes_per_group: int = 8192,
    **fields: int,
) -> bytearray:
    """A superblock that is in order; ``fields`` are values by offset, as ``at_0x3a=1``, two bytes each."""
    raw = bytearray(1024)
    block_bytes = 1024 << shift
    per_group = block_bytes * 8
    first = int(shift == 0)
    groups = -(-(blocks - first) // per_group)
    values = {
        0x0: (groups * inodes_per_group & 0xFFFFFFFF, 4),
        0x4: (blocks & 0xFFFFFFFF, 4),
        0x14: (first, 4),
        0x18: (shift, 4),
        0x20: (per_group, 4),
        0x28: (inodes_per_group, 4),
        0x38: (0xEF53, 2),
        0x3A: (1, 2),
        0x4C: (1, 4),
        0x54: (11, 4),
        0x58: (256, 2),
        0x60: (incompat, 4),
        0xFE: (64, 2),
        0x150: (blocks >> 32, 4),
    }
    values |= {int(name.removeprefix("at_"), 16): (value, 2) for name, value in fields.items()}
    for offset, (value, width) in values.items():
        raw[offset : offset + width] = value.to_bytes(width, "little")
    return raw


def superblock(**fields: int) -> Superblock:
    """The same, read."""
    return read_superblock(bytes(superblock_bytes(**fields)), 1 << 60)
