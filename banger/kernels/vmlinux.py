"""What can be told of the ELF file that a kernel is, without running it: damage that leaves traces. Pure.

It has no checksum. But it is cut short if it does not hold what its tables promise; and a page that a crash or a broken
disk has blanked shows where a kernel has none: its code is filled up with traps, not with zeros (``vmlinux.lds.S``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from banger.posix.elf import MAGIC, ElfFile, Section

_PAGE_BYTES = 4096
_BLANK = (bytes(_PAGE_BYTES), b"\xff" * _PAGE_BYTES)
_NOBITS = 8
_WRITE, _EXECUTE = 1, 4
_PT_LOAD = 1


def fault_of_elf(data: bytes) -> str:
    """What is wrong with a 64-bit ELF file that is to be a kernel; empty if nothing is seen."""
    if not data.startswith(MAGIC + b"\x02"):
        return "it is neither a bzImage nor a 64-bit ELF file"
    try:
        elf = ElfFile(io.BytesIO(data))
        if elf.end > len(data):
            return f"it is cut short, {len(data)} bytes of {elf.end}"
        sections = elf.sections()
    except ValueError as error:
        return str(error)
    end = max((one.offset + one.size for one in sections if one.kind != _NOBITS), default=0)
    if end > len(data):
        return f"it is cut short, {len(data)} bytes of {end}"
    if not any(segment.kind == _PT_LOAD and segment.size for segment in elf.segments):
        return "there is nothing in it to be loaded"
    blank = next(_blank_pages(data, sections), None)
    return "" if blank is None else f"a page of its code is blank, at byte {blank}"


def _blank_pages(data: bytes, sections: tuple[Section, ...]) -> Iterator[int]:
    """Where whole pages of the file are blank that hold code."""
    for section in sections:
        if section.kind == _NOBITS or not section.flags & _EXECUTE or section.flags & _WRITE:
            continue
        first = -(-section.offset // _PAGE_BYTES) * _PAGE_BYTES
        for page in range(first, section.offset + section.size - _PAGE_BYTES + 1, _PAGE_BYTES):
            if data[page : page + _PAGE_BYTES] in _BLANK:
                yield page
