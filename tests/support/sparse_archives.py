"""Sparse members of tar archives, in all of GNU tar's formats; a part is an offset and its data."""

from __future__ import annotations

from tests.support.rootfs import header, number, padded, pax, reseal


def sparse_old(name: bytes, size: int, *parts: tuple[int, bytes], stored: int | None = None) -> bytes:
    """A sparse file in GNU tar's old format: up to four parts in the header, the others in blocks after it."""
    entries = [number(offset, 12) + number(len(data), 12) for offset, data in parts]
    content = b"".join(data for _, data in parts)
    head = bytearray(header(name, b"S", size=len(content) if stored is None else stored, magic=b"ustar  \0"))
    blocks = [entries[at : at + 21] for at in range(4, len(entries), 21)]
    for index, entry in enumerate(entries[:4]):
        head[386 + 24 * index : 410 + 24 * index] = entry
    head[482] = bool(blocks)
    head[483:495] = number(size, 12)
    more = b"".join(
        b"".join(block).ljust(504, b"\0") + bytes([index + 1 < len(blocks)]) + bytes(7)
        for index, block in enumerate(blocks)
    )
    return reseal(bytes(head)) + more + padded(content)


def sparse_pax(name: bytes, size: int, *parts: tuple[int, bytes], version: str = "1.0") -> bytes:
    """A sparse file in one of GNU tar's PAX formats: ``0.0``, ``0.1`` or ``1.0``."""
    content = b"".join(data for _, data in parts)
    numbers = [str(value).encode() for offset, data in parts for value in (offset, len(data))]
    key = b"GNU.sparse."
    count = (key + b"numblocks", str(len(parts)).encode())
    if version == "1.0":
        records = [(key + b"major", b"1"), (key + b"minor", b"0"), (key + b"name", name)]
        records.append((key + b"realsize", str(size).encode()))
        content = padded(b"".join(text + b"\n" for text in [count[1], *numbers])) + content
    elif version == "0.1":
        records = [
            (key + b"size", str(size).encode()),
            count,
            (key + b"map", b",".join(numbers)),
            (key + b"name", name),
        ]
    else:
        records = [(b"path", name), (key + b"size", str(size).encode()), count]
        records += [(key + (b"numbytes" if at % 2 else b"offset"), text) for at, text in enumerate(numbers)]
    return pax(*records) + header(b"GNUSparseFile.1/x", size=len(content)) + padded(content)
