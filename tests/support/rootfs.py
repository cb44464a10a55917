"""Layers by hand, down to every byte of a header, and an independent reader of the images made of them."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from banger.core.operation import Operation
from banger.rootfs.build import Layer, RootfsStats, build_rootfs
from banger.rootfs.layer import read_layer
from banger.rootfs.limits import Budget, Limits
from banger.rootfs.nodes import Directory, Extent, Node
from banger.rootfs.reader import ChunkReader
from banger.rootfs.tar import TarReader
from banger.rootfs.tree import Tree

MTIME = 1_700_000_000
FIXED_UUID = uuid.UUID("6c1f3c58-6d8a-4f36-9f6e-0d7b6a9a1b2c")
END = bytes(1024)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """One ustar header with a right checksum; numbers too large for octal digits are written in base 256."""
    fields = struct.pack(
        "100s8s8s8s12s12s8sc100s8s64x8s8s155s12x",
        name,
        number(mode, 8),
        number(uid, 8),
        number(gid, 8),
        number(size, 12),
        number(mtime, 12),
        b" " * 8,
        kind,
        link,
        magic,
        number(device[0], 8),
        number(device[1], 8),
        prefix,
    )
    return reseal(fields)


def reseal(fields: bytes) -> bytes:
    """The header with its checksum put right."""
    blank = fields[:148] + b" " * 8 + fields[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def number(value: int, width: int) -> bytes:
    """Octal digits, or GNU's binary form for what they cannot hold."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(width - 1, "big", signed=value < 0)


def padded(data: bytes) -> bytes:
    """``data`` filled up to whole blocks of 512 bytes."""
    return data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """One PAX record, which counts its own length digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """A PAX header for the next member (``g``: for all)."""
    return raw_pax(b"".join(record(key, value) for key, value in records), kind)


def raw_pax(data: bytes, kind: bytes = b"x") -> bytes:
    """A PAX header with any content."""
    return header(b"pax", kind, size=len(data)) + padded(data)


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """A GNU header with a long name (``K``: long link target) for the next member."""
    return header(b"././@LongLink", kind, size=len(name) + 1) + padded(name + b"\0")


def file(name: bytes, data: bytes = b"", **attributes: int) -> bytes:
    """A regular file."""
    return header(name, size=len(data), **attributes) + padded(data)


def directory(name: bytes, mode: int = 0o755, **attributes: int) -> bytes:
    """A directory."""
    return header(name, b"5", mode=mode, **attributes)


def symlink(name: bytes, target: bytes) -> bytes:
    """A symbolic link."""
    long = gnu_long(target, b"K") if len(target) > 100 else b""
    return long + header(name, b"2", link=target[:100], mode=0o777)


def hard_link(name: bytes, target: bytes) -> bytes:
    """A hard link."""
    return header(name, b"1", link=target)


def xattrs(values: Mapping[bytes, bytes]) -> bytes:
    """The PAX header that gives the next member extended attributes."""
    return pax(*((b"SCHILY.xattr." + key, value) for key, value in values.items()))


def archive(*members: bytes) -> bytes:
    """A whole archive."""
    return b"".join(members) + END


@dataclass(frozen=True)
class Facts:
    """Everything that can be told about one path, whoever tells it."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    links: int = 1
    size: int = 0
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    same_as: bytes = b""

    def without_time(self) -> Facts:
        """For directories that no layer mentions."""
        return replace(self, mtime_ns=0)


Listing = dict[bytes, Facts]
"""Facts by path relative to the root, whose own path is empty."""


def write_layers(folder: Path, archives: Iterable[bytes], *, compress: bool = False) -> list[Layer]:
    """Archives as local layers."""
    layers = []
    for index, data in enumerate(archives):
        path = folder / f"layer-{index}"
        path.write_bytes(gzip.compress(data, 1, mtime=0) if compress else data)
        layers.append(Layer(path, path.stat().st_size))
    return layers


def build(folder: Path, *archives: bytes, size_bytes: int = 0, limits: Limits | None = None) -> RootfsStats:
    """Build ``folder/rootfs.ext4`` of the archives; e2fsck runs, as always."""
    return build_rootfs(
        write_layers(folder, archives),
        folder / "rootfs.ext4",
        operation=Operation("image.pull", "test"),
        size_bytes=size_bytes,
        limits=limits or Limits(),
        reserved_uuid=FIXED_UUID,
    )


def built(folder: Path, *archives: bytes, size_bytes: int = 64 << 20) -> Listing:
    """Build the archives and read the image back."""
    build(folder, *archives, size_bytes=size_bytes)
    return read_image(folder / "rootfs.ext4")


def read_image(path: Path) -> Listing:
    """All that is in an ext4 image."""
    with path.open("rb") as image:
        return ImageReader(image.fileno()).listing()


def read_tree(root: Path) -> Listing:
    """All that is in a directory of the host (run as root to see every attribute)."""
    listing: Listing = {}
    inodes: dict[bytes, int] = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base):
        paths = [folder + b"/" + name for name in folders + files]
        for path in [base, *paths] if folder == base else paths:
            relative = b"" if path == base else os.path.relpath(path, base)
            listing[relative] = _host_facts(path)
            inodes[relative] = os.lstat(path).st_ino
    return _with_links(listing, inodes)


def _with_links(listing: Listing, inodes: Mapping[bytes, int]) -> Listing:
    """Say of every file which path is the first of its names."""
    first: dict[int, bytes] = {}
    return {
        path: listing[path]
        if listing[path].kind == stat.S_IFDIR
        else replace(listing[path], same_as=first.setdefault(inodes[path], path))
        for path in sorted(listing)
    }


def _host_facts(path: bytes) -> Facts:
    facts = os.lstat(path)
    kind = stat.S_IFMT(facts.st_mode)
    data = b""
    if kind == stat.S_IFREG:
        data = Path(os.fsdecode(path)).read_bytes()
    elif kind == stat.S_IFLNK:
        data = os.fsencode(Path(os.fsdecode(path)).readlink())
    is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    return Facts(
        kind,
        stat.S_IMODE(facts.st_mode),
        facts.st_uid,
        facts.st_gid,
        facts.st_mtime_ns,
        links=facts.st_nlink if kind != stat.S_IFDIR else 0,
        size=facts.st_size if kind != stat.S_IFDIR else 0,
        data=data,
        device=(os.major(facts.st_rdev), os.minor(facts.st_rdev)) if is_device else (0, 0),
        xattrs={
            os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        },
    )


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """The image mounted read-only by the kernel (root only)."""
    at.mkdir()
    subprocess.run(["mount", "-o", "loop,ro,noload,nodev,nosuid,noexec", image, at], check=True, capture_output=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)
        at.rmdir()


_XATTR_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}


class ImageReader:
    """A small reader of ext4, written from the format's documentation and sharing nothing with the writer."""

    BLOCK = 4096

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        superblock = os.pread(descriptor, 1024, 1024)
        (self._inodes_per_group,) = struct.unpack_from("<I", superblock, 40)
        (self._descriptor_size,) = struct.unpack_from("<H", superblock, 254)

    def listing(self) -> Listing:
        """Facts of every path."""
        listing: Listing = {}
        inodes: dict[bytes, int] = {}
        todo = [(b"", 2)]
        while todo:
            path, inode_number = todo.pop()
            inode = self._inode(inode_number)
            listing[path] = facts = self._facts(inode)
            inodes[path] = inode_number
            if facts.kind == stat.S_IFDIR:
                todo += ((path + b"/" + name if path else name, child) for name, child in self._entries(inode))
        return _with_links(listing, inodes)

    def _inode(self, inode_number: int) -> bytes:
        group, slot = divmod(inode_number - 1, self._inodes_per_group)
        entry = os.pread(self._descriptor, 64, self.BLOCK + group * self._descriptor_size)
        table = struct.unpack_from("<I", entry, 8)[0] | struct.unpack_from("<I", entry, 40)[0] << 32
        return os.pread(self._descriptor, 256, table * self.BLOCK + slot * 256)

    def _facts(self, inode: bytes) -> Facts:
        mode, uid_low, size_low = struct.unpack_from("<HHI", inode)
        gid_low, links = struct.unpack_from("<HH", inode, 24)
        uid_high, gid_high = struct.unpack_from("<HH", inode, 120)
        (seconds,) = struct.unpack_from("<i", inode, 16)
        (extra,) = struct.unpack_from("<I", inode, 136)
        kind = stat.S_IFMT(mode)
        size = size_low | struct.unpack_from("<I", inode, 108)[0] << 32
        data = b""
        if kind == stat.S_IFREG or (kind == stat.S_IFLNK and size >= 60):
            data = self._content(inode, size)
        elif kind == stat.S_IFLNK:
            data = inode[40 : 40 + size]
        return Facts(
            kind,
            stat.S_IMODE(mode),
            uid_low | uid_high << 16,
            gid_low | gid_high << 16,
            (seconds + ((extra & 3) << 32)) * 10**9 + (extra >> 2),
            links=links if kind != stat.S_IFDIR else 0,
            size=size if kind != stat.S_IFDIR else 0,
            data=data,
            device=_device(inode) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0),
            xattrs=self._xattrs(inode),
        )

    def _content(self, inode: bytes, size: int) -> bytes:
        data = bytearray(size)
        for logical, physical, count in self._extents(inode[40:100]):
            at = logical * self.BLOCK
            piece = os.pread(self._descriptor, count * self.BLOCK, physical * self.BLOCK)[: size - at]
            data[at : at + len(piece)] = piece
        return bytes(data)

    def _extents(self, node: bytes) -> Iterator[tuple[int, int, int]]:
        magic, entries, _, depth = struct.unpack_from("<HHHH", node)
        assert magic == 0xF30A
        for index in range(entries):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, 12 + 12 * index)
                yield from self._extents(os.pread(self._descriptor, self.BLOCK, (low | high << 32) * self.BLOCK))
            else:
                logical, count, high, low = struct.unpack_from("<IHHI", node, 12 + 12 * index)
                yield logical, low | high << 32, count

    def _entries(self, inode: bytes) -> Iterator[tuple[bytes, int]]:
        data = self._content(inode, struct.unpack_from("<I", inode, 4)[0])
        at = 0
        while at < len(data):
            inode_number, length, name_length = struct.unpack_from("<IHB", data, at)
            name = data[at + 8 : at + 8 + name_length]
            if inode_number and name not in (b".", b".."):
                yield name, inode_number
            at += length

    def _xattrs(self, inode: bytes) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if inode[160:164] == b"\0\0\x02\xea":
            found |= _parse_xattrs(inode, 164, 164)
        block = struct.unpack_from("<I", inode, 104)[0] | struct.unpack_from("<H", inode, 118)[0] << 32
        if block:
            found |= _parse_xattrs(os.pread(self._descriptor, self.BLOCK, block * self.BLOCK), 32, 0)
        return found


def _parse_xattrs(raw: bytes, at: int, base: int) -> dict[bytes, bytes]:
    found = {}
    while raw[at : at + 4] != bytes(4):
        name_length, index, offset, _, size = struct.unpack_from("<BBHII", raw, at)
        value = raw[base + offset : base + offset + size]
        name = _XATTR_PREFIXES[index] + raw[at + 16 : at + 16 + name_length]
        found[name] = _acl_for_system_calls(value) if index in (2, 3) else value
        at += 16 + (name_length + 3 & ~3)
    return found


def _acl_for_system_calls(value: bytes) -> bytes:
    packed, at = struct.pack("<I", 2), 4
    while at < len(value):
        tag, permissions = struct.unpack_from("<HH", value, at)
        named = tag in (2, 8)
        packed += struct.pack(
            "<HHI", tag, permissions, struct.unpack_from("<I", value, at + 4)[0] if named else 0xFFFFFFFF
        )
        at += 8 if named else 4
    return packed


def _device(inode: bytes) -> tuple[int, int]:
    old, new = struct.unpack_from("<II", inode, 40)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


def differences(left: Listing, right: Listing) -> Sequence[str]:
    """What two listings do not agree on, shortly."""
    found = [f"only left: {path!r}" for path in left.keys() - right.keys()]
    found += [f"only right: {path!r}" for path in right.keys() - left.keys()]
    for path in left.keys() & right.keys():
        if left[path] != right[path]:
            names = [
                name for name in Facts.__dataclass_fields__ if getattr(left[path], name) != getattr(right[path], name)
            ]
            found.append(
                f"{path!r}: "
                + ", ".join(f"{n} {getattr(left[path], n)!r:.60}≠{getattr(right[path], n)!r:.60}" for n in names)
            )
    return sorted(found)


class Discard:
    """A sink that reads file data and forgets it; remembers how much there was."""

    def __init__(self) -> None:
        self.stored = 0

    def store(self, reader: ChunkReader, size: int) -> list[Extent]:
        """Read past the data."""
        reader.skip(size)
        self.stored += size
        return []

    def store_pieces(self, pieces: Iterable[tuple[int, bytes]]) -> list[Extent]:
        """The same, of a sparse file."""
        self.stored += sum(len(data) for _, data in pieces)
        return []


def merged(*archives: bytes, limits: Limits | None = None, chunk: int = 1000) -> dict[bytes, Node]:
    """The tree that layers add up to, by path, without any image."""
    budget = Budget(limits or Limits())
    tree = Tree(budget)
    for data in archives:
        reader = ChunkReader(iter([data[at : at + chunk] for at in range(0, len(data), chunk)]))
        tree.apply(
            read_layer(TarReader(reader, budget.limits, end_marker=False, sparse=True), reader, Discard(), budget)
        )
    found: dict[bytes, Node] = {b"": tree.root}
    todo = [(b"", tree.root)]
    while todo:
        path, folder = todo.pop()
        for name, node in folder.entries.items():
            inner = path + b"/" + name if path else name
            found[inner] = node
            if isinstance(node, Directory):
                todo.append((inner, node))
    return found
