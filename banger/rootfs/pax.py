"""PAX extended headers (POSIX.1-2001 ``pax``, *pax Extended Header*), read strictly.

Readers of tar disagree about odd headers, and what one takes for data another takes for a header. So a header that is
malformed, or says for all files what is only sane for one, is refused instead of being interpreted. About a key that is
repeated they agree: the last record counts, as POSIX says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from banger.rootfs import sparse_tar
from banger.rootfs.refusals import refused, shown

XATTR_PREFIX = b"SCHILY.xattr."

#: How the archiver "star" marks a sparse file; its maps are not read.
_STAR_SPARSE = b"SCHILY.realsize"
_TIME = re.compile(rb"(-?)(\d{1,18})(?:\.(\d*))?\Z")
#: Keys that this reader gives a meaning to; POSIX lets a global header set them, Go's reader (so: the whole container
#: world) ignores them there.
_PER_FILE_KEYS = frozenset({b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"})


def parse_records(data: bytes) -> dict[bytes, bytes]:
    r"""The records of one header: ``"%d %s=%s\n"`` each, the number being the record's own length.

    Raises:
        BangerError: ``invalid`` for a malformed record.
    """
    records: dict[bytes, bytes] = {}
    parts: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length_field = data[at:space]
        if space < 0 or not length_field.isdigit():
            raise refused("a PAX header has a malformed length")
        end = at + int(length_field)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1] != 0x0A or not equals or not key:
            raise refused("a PAX header has a malformed record")
        if key == _STAR_SPARSE:
            raise refused("sparse files as the archiver star writes them are not supported")
        if key in (sparse_tar.OFFSET, sparse_tar.BYTES):
            parts.append((key, value))
        else:
            records[key] = value
        at = end
    if parts:
        _add_map(records, parts)
    return records


def _add_map(records: dict[bytes, bytes], parts: list[tuple[bytes, bytes]]) -> None:
    """Write the map of PAX 0.0, a record for every number, as PAX 0.1 does, in one record."""
    keys = [key for key, _ in parts]
    if sparse_tar.MAP in records or keys != [sparse_tar.OFFSET, sparse_tar.BYTES] * (len(keys) // 2):
        raise refused("the map of a sparse file is out of order")
    records[sparse_tar.MAP] = b",".join(value for _, value in parts)


def check_global(records: Mapping[bytes, bytes]) -> None:
    """Refuse a global header that would change files; comments and the like pass."""
    for key in records:
        if key in _PER_FILE_KEYS or key.startswith((XATTR_PREFIX, sparse_tar.PREFIX)):
            raise refused(f"a global PAX header sets {shown(key)} for all files")


def text(records: Mapping[bytes, bytes], key: bytes, default: bytes) -> bytes:
    """A name; an empty value means the plain header's own, as POSIX says."""
    value = records.get(key) or default
    if b"\0" in value:
        raise refused(f"a PAX header has a NUL in {shown(key)}")
    return value


def number(records: Mapping[bytes, bytes], key: bytes, default: int) -> int:
    """A non-negative decimal number."""
    value = records.get(key)
    if not value:
        return default
    if not value.isdigit() or len(value) > 20:
        raise refused(f"a PAX header has a malformed {shown(key)}")
    return int(value)


def time_ns(records: Mapping[bytes, bytes], key: bytes, default: int) -> int:
    """A time with any number of decimals, cut to nanoseconds."""
    value = records.get(key)
    if not value:
        return default
    match = _TIME.match(value)
    if match is None:
        raise refused(f"a PAX header has a malformed {shown(key)}")
    sign, seconds, decimals = match.groups()
    magnitude = int(seconds) * 10**9 + int((decimals or b"").ljust(9, b"0")[:9])
    return -magnitude if sign else magnitude


def xattrs(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Extended attributes by full name; an empty value means that there is none, as POSIX says of every record."""
    prefixed = {key: value for key, value in records.items() if value and key.startswith(XATTR_PREFIX)}
    found = {key[len(XATTR_PREFIX) :]: value for key, value in prefixed.items()}
    for name in found:
        if not name or b"\0" in name:
            raise refused("a PAX header has an extended attribute without a proper name")
    return found
