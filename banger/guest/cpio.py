"""Writer of initramfs archives: cpio "newc", deterministic, uncompressed.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst. Every archive ends on a 4-byte boundary, so
that another one, compressed or not, may follow it in the same initrd.
"""

from __future__ import annotations

import stat
from io import BytesIO

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


class CpioWriter:
    """Collects entries; every owner is root, every time stamp 0, inode numbers count up: equal input, equal bytes."""

    def __init__(self) -> None:
        self._out = BytesIO()
        self._inode = 0
        self._directories: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory and the parents it lacks (mode 0755); adding it again does nothing."""
        path = path.strip("/")
        if not path or path in self._directories:
            return
        self.parents(path)
        self._directories.add(path)
        self._entry(path, stat.S_IFDIR | mode, b"", links=2)

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file and the directories it lacks."""
        self.parents(path)
        self._entry(path.strip("/"), stat.S_IFREG | mode, content)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link and the directories it lacks."""
        self.parents(path)
        self._entry(path.strip("/"), stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node."""
        self.parents(path)
        self._entry(path.strip("/"), stat.S_IFCHR | mode, b"", device=(major, minor))

    def parents(self, path: str) -> None:
        """Add the directories above ``path`` that are not there yet."""
        parent, _, _ = path.strip("/").rpartition("/")
        self.directory(parent)

    def finish(self) -> bytes:
        """The archive: the entries so far and the trailer."""
        trailer = CpioWriter()
        trailer._entry(_TRAILER, 0, b"", inode=0)
        return self._out.getvalue() + trailer._out.getvalue()

    def _entry(
        self,
        path: str,
        mode: int,
        content: bytes,
        *,
        links: int = 1,
        device: tuple[int, int] = (0, 0),
        inode: int | None = None,
    ) -> None:
        if inode is None:
            self._inode += 1
            inode = self._inode
        name = path.encode() + b"\0"
        fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name), 0)
        header = _MAGIC + b"".join(b"%08X" % field for field in fields)
        self._out.write(_padded(header + name))
        self._out.write(_padded(content))


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
