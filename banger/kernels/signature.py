"""Checking the Secure Boot signature of a distribution's bzImage, which also detects damage. Pure.

Format: Microsoft, "Windows Authenticode Portable Executable Signature Format", and PE/COFF. No certificate is looked
at: whose signature it is does not matter here, only whether the file still has the digest that is in it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

#: SPC_INDIRECT_DATA_OBJID, 1.3.6.1.4.1.311.2.1.4, as DER: the signed statement that carries a file's digest.
_STATEMENT = bytes.fromhex("060a2b060104018237020104")
#: Offsets from the optional header: its check sum, and by its magic the entry of the certificate table.
_CHECKSUM = 64
_CERTIFICATES = {0x10B: 128, 0x20B: 144}
_DIGESTS = ("sha256", "sha384", "sha512", "sha1")


def is_as_signed(data: bytes) -> bool | None:
    """True or False for a signed PE image; None for one that is not signed, or no PE image."""
    try:
        checksum, entry, start, size = _places(data)
    except (struct.error, KeyError):
        return None
    blob = data[start : start + size]
    if start + size > len(data):  # a table that is not all there
        return False
    if _STATEMENT not in blob:
        return None
    # What is signed leaves out the check sum, the entry of the certificate table and that table.
    signed = (data[:checksum], data[checksum + 4 : entry], data[entry + 8 : start], data[start + size :])
    return any(digest in blob for digest in _digests_of(signed))


def _places(data: bytes) -> tuple[int, int, int, int]:
    """Where the check sum is, the certificate table's entry, the table itself, and its size."""
    header = struct.unpack_from("<I", data, 0x3C)[0]
    if data[:2] != b"MZ" or data[header : header + 4] != b"PE\0\0":
        raise KeyError("no PE image")
    optional = header + 24
    entry = optional + _CERTIFICATES[struct.unpack_from("<H", data, optional)[0]]
    start, size = struct.unpack_from("<II", data, entry)
    return optional + _CHECKSUM, entry, start, size


def _digests_of(parts: tuple[bytes, ...]) -> Iterator[bytes]:
    for name in _DIGESTS:
        digest = hashlib.new(name)
        for part in parts:
            digest.update(part)
        yield digest.digest()
