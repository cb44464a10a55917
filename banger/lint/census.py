"""Statistics of a whole image."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from banger.core.units import format_size
from banger.lint.finding import Finding, Severity
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.refusals import shown

_SHOWN_PROGRAMS = 5


@dataclass(frozen=True, slots=True)
class Census:
    """What a walk through all of an image counted.

    Attributes:
        entries: names but for the root's.
        file_bytes: sizes of all files; one with several names counts once.
        privileged: paths of the files that run with another user's rights (setuid), or with another group's, sorted.
    """

    entries: int
    file_bytes: int
    privileged: tuple[bytes, ...]


def take_census(image: Ext4Reader, check: Callable[[], None]) -> Census:
    """Walk through the image.

    Args:
        image: to be counted.
        check: called at every entry; may raise to end the walk.
    """
    entries = file_bytes = 0
    privileged = []
    counted: set[int] = set()
    for path, inode in image.walk():
        check()
        entries += bool(path)
        if not inode.is_file:
            continue
        if inode.nlink == 1 or inode.number not in counted:
            file_bytes += inode.size
        if inode.nlink > 1:
            counted.add(inode.number)
        if inode.mode & (stat.S_ISUID | stat.S_ISGID) and inode.mode & 0o111:
            privileged.append(path)
    return Census(entries, file_bytes, tuple(privileged))


def check_census(image: Ext4Reader, census: Census) -> Iterator[Finding]:
    """Say how much there is in the image."""
    superblock = image.superblock
    size, free = (blocks * superblock.block_bytes for blocks in (superblock.blocks, superblock.free_blocks))
    yield Finding(
        Severity.INFO,
        "size",
        f"{_counted(census.entries, 'file')} with {format_size(census.file_bytes)} of data, "
        f"{format_size(min(free, size))} of {format_size(size)} free",
    )
    if census.privileged:
        names = ", ".join(shown(b"/" + path) for path in census.privileged[:_SHOWN_PROGRAMS])
        more = ", …" if len(census.privileged) > _SHOWN_PROGRAMS else ""
        programs = _counted(len(census.privileged), "program")
        message = f"{programs} set to run with the rights of another user or group: {names}{more}"
        yield Finding(Severity.INFO, "setuid", message)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
