"""The file system tree in memory, made from layers and written by the ext4 writer. Plain data, no behaviour.

Names and link targets are bytes as Linux has them; nothing is ever decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: Extended attributes of nearly every file; shared so that a node without any costs nothing.
NO_XATTRS: Mapping[bytes, bytes] = {}


class Extent(NamedTuple):
    """``length`` blocks of a file from its block ``logical`` on, stored from block ``physical`` of the image on."""

    logical: int
    physical: int
    length: int


@dataclass(slots=True, eq=False)
class Node:
    """What every inode has.

    Attributes:
        mode: permission bits with setuid, setgid and sticky; no type bits.
        mtime_ns: nanoseconds since 1970, may be negative.
        xattrs: full name (``user.x``) to value, as Linux system calls take them.
        number: inode number; 0 until the ext4 writer has assigned one.
        links: how many names point here (for a directory, Linux's own count); set with ``number``.
    """

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: NO_XATTRS)
    number: int = field(default=0, init=False)
    links: int = field(default=0, init=False)


@dataclass(slots=True, eq=False)
class Directory(Node):
    """A directory. The parent of the root is the root itself, which is what clamps ``..``."""

    entries: dict[bytes, Node] = field(default_factory=dict, init=False)
    parent: Directory = field(init=False)

    def __post_init__(self) -> None:
        self.parent = self


@dataclass(slots=True, eq=False)
class File(Node):
    """A regular file whose data is already in the image; block ranges without an extent are holes."""

    size: int = 0
    extents: Sequence[Extent] = ()


@dataclass(slots=True, eq=False)
class Symlink(Node):
    """A symbolic link; its mode is always 0777."""

    target: bytes = b""


@dataclass(slots=True, eq=False)
class Device(Node):
    """A character or block device."""

    is_block: bool = False
    major: int = 0
    minor: int = 0


@dataclass(slots=True, eq=False)
class Fifo(Node):
    """A named pipe."""
