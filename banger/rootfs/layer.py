"""Reading one layer: its members become changes to a tree, while their data is written directly to the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from banger.rootfs import sparse_tar
from banger.rootfs.ext4.skeleton import BLOCK_BYTES
from banger.rootfs.limits import NAME_BYTES, Budget
from banger.rootfs.nodes import Device, Directory, Extent, Fifo, File, Node, Symlink
from banger.rootfs.reader import ChunkReader
from banger.rootfs.refusals import refused, shown
from banger.rootfs.tar import Member, MemberKind, TarReader

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
#: Everything else that begins so is bookkeeping of aufs, which wrote the first layers ever; nobody else makes any.
_AUFS_PREFIX = b".wh..wh."


@dataclass(frozen=True, slots=True)
class HardLink:
    """A further name for the file at the path ``target``."""

    target: bytes


@dataclass(slots=True)
class LayerChanges:
    """What one layer does to those below it (OCI image specification, *layer.md*).

    All paths are clean: relative to the root, without empty, ``.`` and ``..`` components; empty for the root itself.

    Attributes:
        whiteouts: paths that the lower layers no longer have.
        opaque: directories whose lower content is gone.
        entries: what the layer adds or replaces, in the archive's order.
    """

    whiteouts: list[bytes] = field(default_factory=list)
    opaque: list[bytes] = field(default_factory=list)
    entries: list[tuple[bytes, Node | HardLink]] = field(default_factory=list)


class DataSink(Protocol):
    """Where the data of files goes."""

    def store(self, reader: ChunkReader, size: int) -> list[Extent]:
        """Take exactly ``size`` bytes from ``reader``; returns where they are."""
        ...

    def store_pieces(self, pieces: Iterable[tuple[int, bytes]]) -> list[Extent]:
        """Take ascending pieces of one file, each beginning at a whole block; returns where they are."""
        ...


def read_layer(members: TarReader, reader: ChunkReader, sink: DataSink, budget: Budget) -> LayerChanges:
    """Read a whole layer.

    Args:
        members: the archive's members, read from ``reader``.
        reader: where ``members`` reads from.
        sink: takes the files' data.
        budget: accounts for every entry.

    Raises:
        BangerError: ``invalid`` for anything that is not a well-formed layer within its limits.
    """
    changes = LayerChanges()
    for member in members:
        path = clean_path(member.name)
        parent, _, name = path.rpartition(b"/")
        budget.spend_entry(len(path) + len(member.link) + sum(len(k) + len(v) for k, v in member.xattrs.items()))
        if _WHITEOUT in path and _is_marker(changes, path, parent, name):
            reader.skip(member.stored)
        else:
            budget.announce(member.stored)
            changes.entries.append((path, _node(member, reader, sink, budget)))
    return changes


def clean_path(raw: bytes) -> bytes:
    """``raw`` relative to the root, with ``..`` resolved by name and clamped at the root.

    Raises:
        BangerError: ``invalid`` if a component is longer than Linux allows.
    """
    path = raw.removeprefix(b"./").removesuffix(b"/")
    # Nearly every path is clean but for that. One that may have an empty or a hidden part is looked at closely.
    if 0 < len(path) <= NAME_BYTES and path[0] not in b"./" and b"/." not in path and b"//" not in raw:
        return path
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            if len(part) > NAME_BYTES:
                raise refused(f"the name {shown(part)} is longer than {NAME_BYTES} bytes")
            parts.append(part)
    return b"/".join(parts)


def _is_marker(changes: LayerChanges, path: bytes, parent: bytes, name: bytes) -> bool:
    """Sort a whiteout into ``changes``; False if ``path`` is an ordinary one after all."""
    for part in path.split(b"/"):
        if part.startswith(_AUFS_PREFIX) and part != _OPAQUE:
            return True
    if parent.startswith(_WHITEOUT) or b"/" + _WHITEOUT in parent:
        raise refused(f"the path {shown(path)} lies below a whiteout")
    if name == _OPAQUE:
        changes.opaque.append(parent)
    elif name.startswith(_WHITEOUT):
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise refused(f"the whiteout {shown(path)} names nothing")
        changes.whiteouts.append(parent + b"/" + hidden if parent else hidden)
    else:
        return False
    return True


def _node(member: Member, reader: ChunkReader, sink: DataSink, budget: Budget) -> Node | HardLink:
    facts = (member.mode, member.uid, member.gid, member.mtime_ns, member.xattrs)
    kind = member.kind
    if kind is MemberKind.FILE:
        if member.sparse is None:
            return File(*facts, size=member.size, extents=sink.store(reader, member.size))
        pieces = _accounted(sparse_tar.pieces(reader, member.sparse.parts), budget)
        return File(*facts, size=member.size, extents=sink.store_pieces(pieces))
    if kind is MemberKind.DIRECTORY:
        return Directory(*facts)
    if kind is MemberKind.SYMLINK:
        return Symlink(*facts, target=member.link)
    if kind is MemberKind.HARD_LINK:
        return HardLink(clean_path(member.link))
    if kind is MemberKind.FIFO:
        return Fifo(*facts)
    return Device(*facts, is_block=kind is MemberKind.BLOCK, major=member.major, minor=member.minor)


def _accounted(pieces: Iterable[tuple[int, bytes]], budget: Budget) -> Iterator[tuple[int, bytes]]:
    """Count what is stored, not what the archive holds: of many scattered bytes each one takes a block."""
    for offset, data in pieces:
        budget.spend_inflated(-(-len(data) // BLOCK_BYTES) * BLOCK_BYTES)
        yield offset, data
