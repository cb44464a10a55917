"""A guest's view of an image with the upper directory of an overlay, as one tree, without mounting anything.

The rules are those of *Overlay Filesystem* in the kernel's documentation, for one lower layer. What only a kernel with
other mount options than the guest's can have left behind is refused instead of being guessed at.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.ext4.metadata import ROOT_INODE
from banger.rootfs.ext4.reader import Ext4Reader, Inode
from banger.rootfs.ext4.reader_directory import Entry
from banger.rootfs.ext4.reader_file import FileReader
from banger.rootfs.limits import Limits
from banger.rootfs.refusals import refused

#: Inodes of the disk are numbered from here on: ext4's own numbers have 32 bits, so that the two never meet.
_UPPER = 1 << 32
_PREFIX = b"trusted.overlay."
_OPAQUE = _PREFIX + b"opaque"
_REDIRECT = _PREFIX + b"redirect"
_WHITEOUT = _PREFIX + b"whiteout"
_METACOPY = _PREFIX + b"metacopy"
#: File types of directory entries (*Linear Directories* of the kernel's ext4 documentation).
_TYPE_UNKNOWN, _TYPE_FILE, _TYPE_DIRECTORY, _TYPE_CHARACTER = 0, 1, 2, 3
_MAX_ENTRIES = Limits().entries


class _Place(NamedTuple):
    """Where a directory of the disk was found: inodes of the image, 0 for none.

    Attributes:
        hidden: what the image has under the same name.
        parent: the image's directory that shows through the directory it is in.
    """

    hidden: int
    parent: int


_NOWHERE = _Place(0, 0)


class OverlayImage(Ext4Reader):
    """The merged tree. It is read like any image; only ``superblock`` and ``path`` are those of the disk alone."""

    def __init__(self, base: Ext4Reader, disk: Path, upper: bytes = b"upper") -> None:
        """Open ``disk`` over ``base``, which stays the caller's to close.

        Args:
            base: the lower layer.
            disk: an ext4 whose journal needs no replaying.
            upper: name of the upper directory in its root.

        Raises:
            BangerError: ``invalid`` if the disk cannot be read or has no such directory; ``not_found``; ``denied``.
        """
        with Ext4Reader(disk) as plain:
            found = plain.find(upper, follow=False)
        if found is None or not found.is_directory:
            raise BangerError(
                ErrorKind.INVALID,
                f'the disk has no directory "{upper.decode()}"',
                subject=str(disk),
                cause="nothing has ever been written to it, or it is not the disk of a VM",
            )
        super().__init__(disk)
        self._base = base
        self._root = _UPPER + found.number
        self._places = {self._root: _Place(hidden=ROOT_INODE, parent=0)}

    @property
    def root(self) -> Inode:
        """The merged root directory, with the upper one's attributes."""
        return self.inode(self._root)

    def inode(self, number: int) -> Inode:
        """The inode that :meth:`listdir` gave this number."""
        if number < _UPPER:
            return self._base.inode(number)
        return replace(super().inode(number - _UPPER), number=number)

    def listdir(self, inode: Inode) -> Iterator[Entry]:
        """The merged entries of a directory, whiteouts and what they hide left out."""
        if inode.number < _UPPER:
            below: Inode | None = inode
            found: dict[bytes, Entry] = {}
        else:
            below = self._shown_below(inode)
            found = self._entries(super().listdir(inode))
        hidden = self._entries(self._base.listdir(below)) if below else {}
        for name, entry in found.items():
            number = _UPPER + entry[1]
            behind = hidden.pop(name, None)
            if entry[2] in (_TYPE_UNKNOWN, _TYPE_DIRECTORY):
                self._places[number] = _Place(behind[1] if behind else 0, below.number if below else 0)
            if not self._is_whiteout(number, entry[2]):
                yield name, number, entry[2]
        for name, number, file_type in hidden.values():
            if not self._is_whiteout(number, file_type):
                yield name, number, file_type

    def open(self, inode: Inode) -> FileReader:
        """The data of a regular file."""
        if inode.number < _UPPER:
            return self._base.open(inode)
        if _METACOPY in super().xattrs(inode):
            raise refused(f"inode {inode.number - _UPPER} of the disk has only its attributes there (overlay.metacopy)")
        return super().open(inode)

    def readlink(self, inode: Inode) -> bytes:
        """The target of a symbolic link."""
        return self._base.readlink(inode) if inode.number < _UPPER else super().readlink(inode)

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Extended attributes but for those by which the overlay keeps its own books, which guests never see."""
        found = self._base.xattrs(inode) if inode.number < _UPPER else super().xattrs(inode)
        return {name: value for name, value in found.items() if not name.startswith(_PREFIX)}

    def _shown_below(self, directory: Inode) -> Inode | None:
        """The image's directory whose entries show through one of the disk's."""
        marks = super().xattrs(directory)
        place = self._places.get(directory.number, _NOWHERE)
        redirect = marks.get(_REDIRECT, b"")
        below: Inode | None = None
        if marks.get(_OPAQUE) == b"y":
            pass
        elif redirect.startswith(b"/"):
            below = self._base.find(redirect, follow=False)
        elif redirect:
            below = self._sibling(place.parent, redirect)
        elif place.hidden:
            below = self._base.inode(place.hidden)
        return below if below and below.is_directory else None

    def _sibling(self, parent: int, name: bytes) -> Inode | None:
        """What the image has as ``name`` in one of its directories: a renamed directory's former self."""
        if parent:
            for found, number, _ in self._base.listdir(self._base.inode(parent)):
                if found == name:
                    return self._base.inode(number)
        return None

    def _is_whiteout(self, number: int, file_type: int) -> bool:
        """True for a character device 0/0, or an empty file of the disk's that is marked as one."""
        if file_type == _TYPE_FILE and number < _UPPER:
            return False
        if file_type not in (_TYPE_UNKNOWN, _TYPE_FILE, _TYPE_CHARACTER):
            return False
        inode = self.inode(number)
        if inode.is_file:
            return number >= _UPPER and not inode.size and _WHITEOUT in super().xattrs(inode)
        return stat.S_ISCHR(inode.mode) and inode.rdev == (0, 0)

    @staticmethod
    def _entries(entries: Iterator[Entry]) -> dict[bytes, Entry]:
        found: dict[bytes, Entry] = {}
        for entry in entries:
            found[entry[0]] = entry
            if len(found) > _MAX_ENTRIES:
                raise refused(f"a directory has more than {_MAX_ENTRIES} entries")
        return found
