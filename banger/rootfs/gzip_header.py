"""How long the header of a gzip member is (RFC 1952, 2.3).

ISA-L loses its place in a header whose optional fields are split between two pieces of input, so whoever feeds it has
to know where the header ends.
"""

from __future__ import annotations

from banger.rootfs.refusals import refused

#: RFC 1952: the magic number, and the only method there is.
MAGIC = b"\x1f\x8b\x08"
_FIXED_BYTES = 10
_CHECKSUM, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
#: The extra field ends at 64 KiB by itself; a name and a comment have no limit of their own.
_LONGEST = 1 << 20


def header_length(data: bytes) -> int:
    """Bytes of the header that ``data`` begins with; 0 if it goes on behind the end of ``data``.

    Raises:
        BangerError: ``invalid`` for anything but a header, or one out of all proportion.
    """
    if not MAGIC.startswith(data[:3]) and not data.startswith(MAGIC):
        raise refused("the gzip data is damaged: something else follows")
    length = _length(data)
    if max(length, len(data) if not length else 0) > _LONGEST:
        raise refused("the gzip data is damaged: a header has no end")
    return length if length <= len(data) else 0


def _length(data: bytes) -> int:
    if len(data) < _FIXED_BYTES:
        return 0
    flags, at = data[3], _FIXED_BYTES
    if flags & _EXTRA:
        if len(data) < at + 2:
            return 0
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for field in (_NAME, _COMMENT):
        if flags & field:
            end = data.find(b"\0", at)
            if end < 0:
                return 0
            at = end + 1
    return at + (2 if flags & _CHECKSUM else 0)
