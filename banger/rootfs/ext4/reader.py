"""Reading an ext4 image without mounting it: no privileges, and no kernel parser exposed to untrusted bytes.

Images are taken for hostile: every number from the disk is checked before it is used, nothing is allocated by it, and
whatever does not add up ends with an ``invalid`` error. What is read: ext2, ext3 and ext4 as ``mke2fs`` of e2fsprogs
1.43 to 1.47 makes them by default and as banger writes them. Not read, and refused by name: ``inline_data``,
``ea_inode``, ``encrypt``, ``casefold``, ``meta_bg``, a journal that needs replaying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.ext4.metadata import ROOT_INODE
from banger.rootfs.ext4.reader_content import ContentReader
from banger.rootfs.ext4.reader_device import BlockDevice
from banger.rootfs.ext4.reader_inode import Inode
from banger.rootfs.ext4.reader_superblock import Superblock
from banger.rootfs.limits import FOLLOWED_LINKS, Limits
from banger.rootfs.refusals import refused, shown

__all__ = ["Ext4Reader", "Inode", "Superblock"]

#: Directories that one path may lead through, sizes added up: a hostile path visits a large one thousands of times.
_LOOKUP_BYTES = 128 << 20
_LIMITS = Limits()

Keep = Callable[[bytes, Inode], bool]
"""Says of a path and its inode whether a walk goes there."""


def _keep_all(_path: bytes, _inode: Inode) -> bool:
    return True


class Ext4Reader(ContentReader):
    """An image file, open for reading; a context manager. Not thread-safe.

    Paths are bytes, relative to the image's root whether or not they begin with a slash.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            BangerError: ``invalid`` if it holds no ext4 that can be read; ``not_found``; ``denied``.
        """
        super().__init__(BlockDevice(path))
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._device.close()

    @property
    def superblock(self) -> Superblock:
        """What holds for the file system as a whole."""
        return self._device.superblock

    @property
    def root(self) -> Inode:
        """The root directory."""
        return self.inode(ROOT_INODE)

    def resolve(self, path: bytes, follow: bool = True) -> Inode:
        """What is at ``path``, all links followed inside the image; the last one only with ``follow``.

        Raises:
            BangerError: ``not_found`` if nothing is there, or a link on the way leads nowhere or in
                circles; ``invalid``.
        """
        found = self.find(path, follow)
        if found is None:
            raise BangerError(ErrorKind.NOT_FOUND, f"the image has no {shown(path)}")
        return found

    def find(self, path: bytes, follow: bool = True) -> Inode | None:
        """As :meth:`resolve`, but ``None`` for what is not there."""
        stack = [self.root]
        todo = path.split(b"/")[::-1]
        followed = searched = 0
        while todo:
            name = todo.pop()
            here = stack[-1]
            if not here.is_directory:
                return None
            if name in (b"", b"."):
                continue
            if name == b"..":
                del stack[max(len(stack) - 1, 1) :]
                continue
            searched += here.size
            if searched > _LOOKUP_BYTES:
                raise refused(f"the path {shown(path)} leads through directories that are too large")
            child = self._child(here, name)
            if child is None:
                return None
            if not child.is_symlink or (not follow and not todo):
                stack.append(child)
                continue
            followed += 1
            if followed > FOLLOWED_LINKS:
                return None
            target = self.readlink(child)
            todo.extend(reversed(target.split(b"/")))
            if target.startswith(b"/"):
                del stack[1:]
        return stack[-1]

    def walk(self, start: Inode | None = None, keep: Keep = _keep_all) -> Iterator[tuple[bytes, Inode]]:
        """Everything below a directory, itself first with an empty path, each directory's names sorted.

        Args:
            start: the directory; by default the root.
            keep: what it says no to is left out, with all below it.

        Raises:
            BangerError: ``invalid``, while iterating, also if there is more than banger puts into an image, a path too
                long for Linux, or a directory with two names.
        """
        start = start or self.root
        yield b"", start
        visited = {start.number}
        listing = self._sorted(start, _LIMITS.entries)
        room = _LIMITS.entries - len(listing)
        pending = [(b"", iter(listing))]
        while pending:
            base, names = pending[-1]
            name, number = next(names, (b"", 0))
            if not number:
                pending.pop()
                continue
            path = base + name
            if len(path) > _LIMITS.path_bytes:
                raise refused(f"the path {shown(path)} is longer than {_LIMITS.path_bytes} bytes")
            inode = self.inode(number)
            if not keep(path, inode):
                continue
            yield path, inode
            if inode.is_directory:
                if number in visited:
                    raise refused(f"the directory {shown(path)} has two names: the file system is damaged")
                visited.add(number)
                listing = self._sorted(inode, room)
                room -= len(listing)
                pending.append((path + b"/", iter(listing)))

    def _child(self, directory: Inode, name: bytes) -> Inode | None:
        for found, number, _ in self.listdir(directory):
            if found == name:
                return self.inode(number)
        return None

    def _sorted(self, directory: Inode, room: int) -> list[tuple[bytes, int]]:
        entries: list[tuple[bytes, int]] = []
        for name, number, _ in self.listdir(directory):
            if len(entries) >= room:
                raise refused(f"the image holds more than {_LIMITS.entries} files")
            entries.append((name, number))
        return sorted(entries)
