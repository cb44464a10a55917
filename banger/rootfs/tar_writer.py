"""Writing tar headers: POSIX.1-2001 ``pax`` interchange, extended headers only where ustar has no room."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from banger.rootfs.nodes import NO_XATTRS
from banger.rootfs.pax import XATTR_PREFIX
from banger.rootfs.tar import BLOCK

#: What ends an archive.
END = bytes(2 * BLOCK)
#: name, mode, uid, gid, size, mtime, checksum, type, link name, magic and version, major, minor.
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155x12x")
_MAGIC = b"ustar\x0000"
_NAME_BYTES = 100
#: What seven and eleven octal digits hold.
_MAX_SHORT, _MAX_LONG = 8**7 - 1, 8**11 - 1


@dataclass(frozen=True, slots=True)
class MemberHeader:
    """What is said of one member.

    Attributes:
        name: path; of a directory, with a slash at its end.
        flag: type, as ustar writes it.
        mode: permission bits, setuid, setgid and sticky.
        size: bytes of data that follow, filled up to whole blocks of 512.
        link: target of a symbolic or hard link.
        rdev: major and minor number of a device.
        xattrs: full name, without ``=``, to non-empty value.
    """

    name: bytes
    flag: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: NO_XATTRS)

    def pack(self) -> bytes:
        """The member's headers."""
        records = [*self._records(), *((XATTR_PREFIX + name, self.xattrs[name]) for name in sorted(self.xattrs))]
        if not records:
            return self._ustar()
        data = b"".join(_record(key, value) for key, value in records)
        extended = MemberHeader(b"PaxHeader", b"x", 0o644, size=len(data))
        return extended._ustar() + data + bytes(-len(data) % BLOCK) + self._ustar()

    def _ustar(self) -> bytes:
        """512 bytes; numbers that have no room are 0 and names are cut, for the PAX header to say."""
        blank = _HEADER.pack(
            self.name[:_NAME_BYTES],
            _octal(self.mode, 8),
            _octal(self.uid, 8),
            _octal(self.gid, 8),
            _octal(self.size, 12),
            _octal(self.mtime_ns // 10**9, 12),
            b" " * 8,  # the checksum counts its own field as spaces
            self.flag,
            self.link[:_NAME_BYTES],
            _MAGIC,
            _octal(self.rdev[0], 8),
            _octal(self.rdev[1], 8),
        )
        return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]

    def _records(self) -> Sequence[tuple[bytes, bytes]]:
        """What does not fit into the fields of ustar."""
        long = [
            (key, text) for key, text in ((b"path", self.name), (b"linkpath", self.link)) if len(text) > _NAME_BYTES
        ]
        found = list(long)
        if not all(_is_utf8(text) for _, text in long):
            found.insert(0, (b"hdrcharset", b"BINARY"))
        for key, number, most in ((b"uid", self.uid, _MAX_SHORT), (b"gid", self.gid, _MAX_SHORT)):
            if number > most:
                found.append((key, b"%d" % number))
        if self.size > _MAX_LONG:
            found.append((b"size", b"%d" % self.size))
        seconds, nanoseconds = divmod(self.mtime_ns, 10**9)
        if nanoseconds or not 0 <= seconds <= _MAX_LONG:
            found.append((b"mtime", _decimal(self.mtime_ns)))
        return found


def _record(key: bytes, value: bytes) -> bytes:
    """A decimal length that counts itself, a space, key, ``=``, value, newline."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value if 0 <= value < 8 ** (width - 1) else 0)


def _decimal(nanoseconds: int) -> bytes:
    """Seconds as a decimal fraction without trailing zeros; the sign is that of the whole."""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    text = f"{'-' if nanoseconds < 0 else ''}{seconds}"
    return f"{text}.{rest:09d}".rstrip("0").encode() if rest else text.encode()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
