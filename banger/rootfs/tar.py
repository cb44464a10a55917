"""A streaming reader of tar headers: POSIX ustar and PAX, GNU long names and base-256 numbers, old V7.

Field offsets are those of POSIX.1-2001 ``pax``, *ustar Interchange Format*. Where readers are known to differ, this one
does what Go's ``archive/tar`` does, because that is what builds and unpacks nearly every image; what would be
ambiguous even then is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from zlib import adler32

from banger.rootfs import pax, sparse_tar
from banger.rootfs.limits import TARGET_BYTES, Limits
from banger.rootfs.nodes import NO_XATTRS
from banger.rootfs.reader import ChunkReader
from banger.rootfs.refusals import refused, shown

BLOCK = 512
_ZERO_BLOCK = bytes(BLOCK)
_HALF = BLOCK // 2
#: name, mode, uid, gid, size, mtime, checksum, type, link name, magic, (version, uname, gname), major, minor, prefix.
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s66x8s8s155s12s")
_USTAR, _GNU = b"ustar\0", b"ustar "
#: 2^32 - 1 means "leave as it is" to chown(2), so no file can have it.
_MAX_ID = 2**32 - 2


class MemberKind(Enum):
    """What an archive member is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "named pipe"


_KINDS = {
    b"0": MemberKind.FILE,
    b"\0": MemberKind.FILE,
    b"7": MemberKind.FILE,
    b"1": MemberKind.HARD_LINK,
    b"2": MemberKind.SYMLINK,
    b"3": MemberKind.CHARACTER,
    b"4": MemberKind.BLOCK,
    b"5": MemberKind.DIRECTORY,
    b"6": MemberKind.FIFO,
}
_LINKS = (MemberKind.SYMLINK, MemberKind.HARD_LINK)
_DEVICES = (MemberKind.CHARACTER, MemberKind.BLOCK)


@dataclass(slots=True)
class Member:
    """One archive member, just as it says: nothing about its name is trusted yet.

    Attributes:
        mode: permission bits, setuid, setgid and sticky.
        size: bytes of a file; 0 for everything else.
        sparse: which parts of the file are stored; ``None``: all of it.
        link: target of a symbolic or hard link.
    """

    name: bytes
    kind: MemberKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: NO_XATTRS)
    sparse: sparse_tar.Sparse | None = None

    @property
    def stored(self) -> int:
        """Bytes of data that follow."""
        return self.size if self.sparse is None else self.sparse.stored


@dataclass(slots=True)
class _Extension:
    """What the headers before a member said about it."""

    records: dict[bytes, bytes] | None = None
    name: bytes | None = None
    link: bytes | None = None

    @property
    def pending(self) -> bool:
        return self.records is not None or self.name is not None or self.link is not None


class TarReader:
    """Iterates over the members of one archive.

    Whoever iterates must read exactly ``member.stored`` bytes from the same reader before taking the next member; that
    is ``member.size`` but for sparse files.
    """

    def __init__(self, reader: ChunkReader, limits: Limits, *, end_marker: bool, sparse: bool = False) -> None:
        """Read from ``reader``.

        Args:
            reader: the decompressed archive.
            limits: ceilings for headers, names and files.
            end_marker: refuse an archive without the final zero block: for sources that cannot tell the end from a
                break. Elsewhere it may be missing, as other readers also allow.
            sparse: yield sparse files, too, instead of refusing them.
        """
        self._reader = reader
        self._limits = limits
        self._end_marker = end_marker
        self._takes_sparse = sparse

    def __iter__(self) -> Iterator[Member]:
        """Yield the members in order.

        Raises:
            BangerError: ``invalid`` for everything that is not a well-formed archive within the limits.
        """
        extension = _Extension()
        reader = self._reader
        while (header := self._next_header(extension)) is not None:
            kind = header[156:157]
            if kind in b"xgLK":
                self._extend(extension, kind, header)
                continue
            member, skipped = self._member(header, extension)
            if extension.pending:
                extension = _Extension()
            yield member
            reader.skip(skipped)
            padding = -(member.stored + skipped) % BLOCK
            # Some archivers leave the last block short where they write no end marker either; Go's reader takes that.
            if padding and (self._end_marker or not reader.at_end()):
                reader.skip(padding)

    def _next_header(self, extension: _Extension) -> bytes | None:
        if self._reader.at_end():
            if self._end_marker:
                raise refused("the archive is truncated: it has no end marker")
            header = None
        else:
            header = self._reader.read(BLOCK)
            if header == _ZERO_BLOCK:
                self._reader.drain()
                header = None
        if header is None:
            if extension.pending:
                raise refused("the archive ends after an extension header")
            return None
        _check_sum(header)
        return header

    def _extend(self, extension: _Extension, kind: bytes, header: bytes) -> None:
        size = _number(header[124:136])
        if size > self._limits.header_bytes:
            raise refused(f"an extension header of {size} bytes is larger than any real one")
        data = self._reader.read(size)
        self._reader.skip(-size % BLOCK)
        if kind == b"g":
            pax.check_global(pax.parse_records(data))
        elif kind == b"x" and extension.records is None:
            extension.records = pax.parse_records(data)
        elif kind == b"L" and extension.name is None:
            extension.name = data.partition(b"\0")[0]
        elif kind == b"K" and extension.link is None:
            extension.link = data.partition(b"\0")[0]
        else:
            raise refused("a member has two extension headers of one kind")

    def _member(self, header: bytes, extension: _Extension) -> tuple[Member, int]:
        """The member that ``header`` describes, and how many bytes of data it has that do not count."""
        fields = _HEADER.unpack(header)
        flag, magic = fields[7], fields[9]
        old_sparse = flag == b"S" and magic == _GNU
        kind = MemberKind.FILE if old_sparse else _KINDS.get(flag)
        name = _c_string(fields[0])
        if magic == _USTAR and fields[12][0]:
            # The archiver "star" marks its own variant at the end and keeps times behind a shorter prefix.
            prefix = fields[12][:131] if fields[13].endswith(b"tar\0") else fields[12]
            name = _c_string(prefix) + b"/" + name
        if kind is None:
            raise refused(f"entry {shown(extension.name or name)} is of unknown type {shown(flag)}")
        member = Member(
            name=name,
            kind=kind,
            mode=_common_number(fields[1]) & 0o7777,
            uid=_common_number(fields[2]),
            gid=_common_number(fields[3]),
            mtime_ns=_signed_number(fields[5]) * 10**9,
            size=_number(fields[4]) if kind is MemberKind.FILE else 0,
            link=_c_string(fields[8]) if kind in _LINKS else b"",
        )
        if kind in _DEVICES:
            member.major, member.minor = _number(fields[10]), _number(fields[11])
        if extension.pending:
            _apply(extension, member)
        if old_sparse or extension.records:
            self._add_sparse(member, header if old_sparse else b"", extension.records or {})
        self._check(member)
        if flag == b"\0" and member.sparse is None and member.name.endswith(b"/"):  # how V7 wrote a directory
            skipped, member.size, member.kind = member.size, 0, MemberKind.DIRECTORY
            return member, skipped
        return member, 0

    def _add_sparse(self, member: Member, old_header: bytes, records: Mapping[bytes, bytes]) -> None:
        """Read where the data of a sparse file belongs, which makes ``size`` that of the file."""
        in_pax = any(key.startswith(sparse_tar.PREFIX) for key in records)
        if not old_header and not in_pax:
            return
        if member.kind is not MemberKind.FILE or (old_header and in_pax):
            raise refused(f"entry {shown(member.name)} is sparse in more than one way")
        member.name = pax.text(records, sparse_tar.NAME, member.name)
        if not self._takes_sparse:
            raise refused(f"entry {shown(member.name)} is a sparse file, which is not supported here")
        if member.size > self._limits.file_bytes:
            raise refused(f"entry {shown(member.name)} is larger than {self._limits.file_bytes} bytes")
        limit = self._limits.header_bytes
        if old_header:
            member.sparse = sparse_tar.read_old(old_header, self._reader, limit, _number, member.size)
        else:
            member.sparse = sparse_tar.read_pax(records, self._reader, limit, member.size)
        member.size = member.sparse.size

    def _check(self, member: Member) -> None:
        if not member.name:
            raise refused("an entry has no name")
        if len(member.name) > self._limits.path_bytes:
            raise refused(f"the path {shown(member.name)} is longer than {self._limits.path_bytes} bytes")
        if member.uid > _MAX_ID or member.gid > _MAX_ID:
            raise refused(f"entry {shown(member.name)} has an owner that Linux cannot represent")
        if member.size > self._limits.file_bytes:
            raise refused(f"entry {shown(member.name)} is larger than {self._limits.file_bytes} bytes")
        if member.kind in _LINKS and not 0 < len(member.link) <= TARGET_BYTES:
            raise refused(f"the link {shown(member.name)} has an empty or overlong target")
        if member.major > 0xFFF or member.minor > 0xFFFFF:  # Linux: 12 and 20 bits (MKDEV)
            raise refused(f"the device {shown(member.name)} has numbers that Linux cannot represent")


def _apply(extension: _Extension, member: Member) -> None:
    """Let the extension headers overrule the plain one."""
    records = extension.records or {}
    if (extension.name is not None and b"path" in records) or (extension.link is not None and b"linkpath" in records):
        raise refused("a member has both a GNU and a PAX name")
    member.name = pax.text(records, b"path", member.name if extension.name is None else extension.name)
    if member.kind in _LINKS:
        member.link = pax.text(records, b"linkpath", member.link if extension.link is None else extension.link)
    if member.kind is MemberKind.FILE:
        member.size = pax.number(records, b"size", member.size)
    member.uid = pax.number(records, b"uid", member.uid)
    member.gid = pax.number(records, b"gid", member.gid)
    member.mtime_ns = pax.time_ns(records, b"mtime", member.mtime_ns)
    member.xattrs = pax.xattrs(records) or NO_XATTRS


def _check_sum(header: bytes) -> None:
    stored = header[148:156]
    expected = _number(stored)
    # The checksum counts its own field as eight spaces.
    if _sum(header[:_HALF]) + _sum(header[_HALF:]) - _sum(stored) + 256 == expected:
        return
    # Some old archivers summed signed bytes.
    if sum(struct.unpack("512b", header)) - sum(struct.unpack("8b", stored)) + 256 == expected:
        return
    raise refused("a header has a wrong checksum: this is not a tar archive, or it is damaged")


def _sum(data: bytes) -> int:
    """The sum of up to 256 bytes: the low half of Adler-32 is that and one more, modulo 65521 (RFC 1950)."""
    return (adler32(data) & 0xFFFF) - 1


def _c_string(value: bytes) -> bytes:
    return value.partition(b"\0")[0]


def _signed_number(value: bytes) -> int:
    """Octal digits ended by NUL or space, or (GNU, star) a big-endian two's complement number marked by the top bit."""
    digits = value[:-1]
    if not digits.isdigit():  # nearly always it is: leading zeros and one terminator
        if value[0] & 0x80:
            bits = 8 * len(value)
            return int.from_bytes(value, "big") - (1 << (bits if value[0] & 0x40 else bits - 1))
        digits = value.strip(b" \0").partition(b"\0")[0]
        if not digits:
            return 0
    elif value[-1] not in b"\0 ":
        digits = value
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:
        pass
    raise refused(f"a header has a malformed number {shown(digits)}")


def _number(value: bytes) -> int:
    number = _signed_number(value)
    if number < 0:
        raise refused("a header has a negative number")
    return number


#: For fields that hold the same few values in nearly every header.
_common_number = lru_cache(maxsize=256)(_number)
