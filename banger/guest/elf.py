"""What a dynamically linked program asks for: its loader and its libraries, read from the file (never by running it).

Format: System V ABI, chapter 5, for 64-bit little-endian ELF files.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


@dataclass(frozen=True, slots=True)
class Linkage:
    """``interpreter`` is the loader's path, empty for a library or a static program; ``needed`` are sonames."""

    machine: int
    interpreter: str
    needed: tuple[str, ...]

    @property
    def is_static(self) -> bool:
        """True for a program that needs no file besides itself."""
        return not self.interpreter and not self.needed


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def read_linkage(data: bytes) -> Linkage:
    """Read a program or library.

    Raises:
        ValueError: it is not a 64-bit little-endian ELF file, or is damaged.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    try:
        (machine,) = struct.unpack_from("<H", data, 18)
        segments = list(_segments(data))
        interpreter = ""
        needed: tuple[str, ...] = ()
        for segment in segments:
            if segment.kind == _PT_INTERP:
                interpreter = _text(data, segment.offset)
            elif segment.kind == _PT_DYNAMIC:
                needed = _needed(data, segment, segments)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"damaged ELF file: {error}") from error
    return Linkage(machine, interpreter, needed)


def _segments(data: bytes) -> list[_Segment]:
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for index in range(count):
        kind, _, offset, address, _, file_size = struct.unpack_from("<IIQQQQ", data, table + index * size)
        found.append(_Segment(kind, offset, address, file_size))
    return found


def _needed(data: bytes, dynamic: _Segment, segments: list[_Segment]) -> tuple[str, ...]:
    names: list[int] = []
    strings = 0
    for offset in range(dynamic.offset, dynamic.offset + dynamic.size, 16):
        tag, value = struct.unpack_from("<QQ", data, offset)
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            names.append(value)
        elif tag == _DT_STRTAB:
            strings = _file_offset(value, segments)
    return tuple(_text(data, strings + name) for name in names)


def _file_offset(address: int, segments: list[_Segment]) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise IndexError("an address outside every segment")


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
