"""An image, or a directory in one, as a tar archive: what :func:`~banger.rootfs.build.build_rootfs` reads back equal.

Nothing is in the archive but what the tree says: equal trees give equal bytes, however their images are laid out.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from banger.core.cancel import CancelToken
from banger.core.units import format_size
from banger.rootfs.ext4.reader import Ext4Reader, Inode
from banger.rootfs.limits import Limits
from banger.rootfs.nodes import NO_XATTRS
from banger.rootfs.refusals import refused, shown
from banger.rootfs.tar import BLOCK
from banger.rootfs.tar_writer import END, MemberHeader

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FLAGS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_HARD_LINK = b"1"
_ROOT = b"./"
#: Such names mean "deleted" in a layer; one that is in an image all the same cannot be put into an archive.
_WHITEOUT = b".wh."
_LIMITS = Limits()


class Writable(Protocol):
    """Where an archive goes."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""
        ...


@dataclass(slots=True)
class TarStats:
    """What an archive holds; grows while it is made.

    Attributes:
        entries: members; a file's further names count.
        file_bytes: data of files, holes included.
        left_out: what was asked to be left out, and what a layer cannot hold: sockets, names that mean a whiteout,
            attributes with ``=`` in their name or without a value. A directory counts once.
    """

    entries: int = 0
    file_bytes: int = 0
    left_out: int = 0


@dataclass(slots=True)
class TreeTar:
    """One archive in the making.

    Attributes:
        image: read while the archive is made.
        start: the directory that becomes the archive's root; ``None`` for the whole image.
        keep: says of a path (relative to ``start``) and its inode whether it goes into the archive.
        token: cancels.
        max_bytes: the most that all files together may hold, holes included.
    """

    image: Ext4Reader
    start: Inode | None = None
    keep: Callable[[bytes, Inode], bool] | None = None
    token: CancelToken = field(default_factory=CancelToken)
    max_bytes: int = _LIMITS.total_bytes
    stats: TarStats = field(default_factory=TarStats, init=False)
    _names: dict[int, bytes] = field(default_factory=dict, init=False)

    def write_to(self, target: Writable) -> TarStats:
        """Write the archive; raises as :meth:`chunks` does, and whatever ``target`` raises."""
        for chunk in self.chunks():
            target.write(chunk)
        return self.stats

    def chunks(self) -> Iterator[bytes]:
        """The archive's bytes in pieces of at most 256 KiB but for large attributes; to be called once.

        Raises:
            BangerError: ``invalid`` if the image is damaged or holds more than banger puts into one; ``cancelled``.
        """
        for path, inode in self.image.walk(self.start, self._keeps):
            self.token.raise_if_cancelled()
            self.stats.entries += 1
            first = self._first_name(path, inode)
            yield self._header(path, inode, first).pack()
            if inode.is_file and not first:
                yield from self._data(path, inode)
        yield END

    def _keeps(self, path: bytes, inode: Inode) -> bool:
        fits = not stat.S_ISSOCK(inode.mode) and not path.rpartition(b"/")[2].startswith(_WHITEOUT)
        kept = fits and (self.keep is None or self.keep(path, inode))
        self.stats.left_out += not kept
        return kept

    def _first_name(self, path: bytes, inode: Inode) -> bytes:
        """The name under which the archive has the inode already; empty if it has not."""
        if inode.nlink < 2 or inode.is_directory:
            return b""
        first = self._names.setdefault(inode.number, path)
        return b"" if first is path else first

    def _header(self, path: bytes, inode: Inode, first: bytes) -> MemberHeader:
        """What the archive says of an inode; ``first`` is the name that it has there already."""
        if first:
            target, xattrs = first, NO_XATTRS
        else:
            target, xattrs = self.image.readlink(inode) if inode.is_symlink else b"", self._xattrs(inode)
        return MemberHeader(
            name=path + b"/" if path and inode.is_directory else path or _ROOT,
            flag=_HARD_LINK if first else _FLAGS[stat.S_IFMT(inode.mode)],
            mode=stat.S_IMODE(inode.mode),
            uid=inode.uid,
            gid=inode.gid,
            size=inode.size if inode.is_file and not first else 0,
            mtime_ns=inode.mtime_ns,
            link=target,
            rdev=inode.rdev,
            xattrs=xattrs,
        )

    def _xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        found = self.image.xattrs(inode)
        fit = {name: value for name, value in found.items() if value and b"=" not in name}
        self.stats.left_out += len(found) - len(fit)
        return fit

    def _data(self, path: bytes, inode: Inode) -> Iterator[bytes]:
        self.stats.file_bytes += inode.size
        if inode.size > _LIMITS.file_bytes or self.stats.file_bytes > self.max_bytes:
            raise refused(f"with {shown(path)} the files hold more than {format_size(self.max_bytes)}")
        with self.image.open(inode) as reader:
            while chunk := reader.read_some():
                self.token.raise_if_cancelled()
                yield chunk
        yield bytes(-inode.size % BLOCK)


class ChunkStream(io.RawIOBase):
    """An iterator of chunks as a stream that is read forward: an archive for a reader, with neither pipe nor thread."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill some of ``buffer``; 0 at the end. Raises what the iterator raises."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def empty_tar(mode: int) -> bytes:
    """An archive of nothing but its root directory, owned by root."""
    return MemberHeader(_ROOT, _FLAGS[stat.S_IFDIR], mode).pack() + END
