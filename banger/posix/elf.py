"""The little of an ELF file that tells where it runs and what it loads, read from the file and never by running it.

Format: System V ABI, *ELF Header*, *Program Header* and *Dynamic Section*, of either word size and byte order. A file
may be somebody else's and damaged, so every read is bounded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAGIC = b"\x7fELF"
_IDENT_BYTES = 16
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_SHT_STRTAB = 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
#: More program headers, dynamic entries or longer names than these no real file has.
_MAX_HEADERS = 128
_MAX_ENTRIES = 4096
_MAX_NAME_BYTES = 4096


def is_elf(path: Path) -> bool:
    """True if the file begins as an ELF file does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


@dataclass(frozen=True, slots=True)
class Segment:
    """One program header: ``size`` bytes at ``offset`` of the file belong at ``address``."""

    kind: int
    offset: int
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Section:
    """One section header: ``size`` bytes at ``offset`` of the file, unless it is of a ``kind`` that has none there."""

    kind: int
    flags: int
    offset: int
    size: int


class ElfFile:
    """The headers of a program, library or kernel.

    Attributes:
        is_wide: it is a 64-bit file.
        is_little: it is little-endian.
        machine: the number of its architecture (``e_machine``).
        entry: the address at which it is to be begun.
        segments: its program headers.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the headers.

        Args:
            file: seekable, and open as long as names are asked for.

        Raises:
            ValueError: it is no ELF file, or is damaged.
        """
        self._file = file
        file.seek(0)
        ident = file.read(_IDENT_BYTES)
        if len(ident) < _IDENT_BYTES or ident[:4] != MAGIC or ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise ValueError("not an ELF file")
        self.is_wide, self.is_little = ident[4] == 2, ident[5] == 1
        self._order = "<" if self.is_little else ">"
        try:
            # The rest of the header: type, machine, version, entry, program headers, sections, flags, own size; then
            # of both tables what an entry takes and how many there are, and the section that has the others' names.
            _, self.machine, _, self.entry, table, sections, _, _, size, count, *self._section_facts = self._unpack(
                "HHIQQQIHHHHHH" if self.is_wide else "HHIIIIIHHHHHH"
            )
            self._sections_at = sections
            self.segments = tuple(self._segment(table + index * size) for index in range(min(count, _MAX_HEADERS)))
        except (struct.error, OverflowError) as error:
            raise ValueError(f"damaged ELF file: {error}") from error

    @property
    def end(self) -> int:
        """How long the file has to be, as far as its program headers tell."""
        return max((segment.offset + segment.size for segment in self.segments), default=0)

    def sections(self) -> tuple[Section, ...]:
        """Its section headers; none if they were stripped. Raises ``ValueError`` for a table that is not whole."""
        size, count, names = self._section_facts
        if not self._sections_at:
            return ()
        try:
            found = tuple(self._section(self._sections_at + index * size) for index in range(count))
        except (struct.error, OverflowError) as error:
            raise ValueError(f"damaged ELF file: {error}") from error
        if names >= count or found[names].kind != _SHT_STRTAB:
            raise ValueError("damaged ELF file: its table of sections makes no sense")
        return found

    def _section(self, position: int) -> Section:
        self._file.seek(position)
        _, kind, flags, _, offset, size, *_ = self._unpack("IIQQQQIIQQ" if self.is_wide else "10I")
        return Section(kind, flags, offset, size)

    def interpreter(self) -> bytes:
        """The path of its dynamic loader; empty for a library or a static program. Raises ``ValueError``."""
        for segment in self.segments:
            if segment.kind == _PT_INTERP:
                return self._read(segment.offset, min(segment.size, _MAX_NAME_BYTES)).partition(b"\0")[0]
        return b""

    def needed(self) -> tuple[str, ...]:
        """The names of the libraries that it loads, in their order. Raises ``ValueError``."""
        dynamic = next((segment for segment in self.segments if segment.kind == _PT_DYNAMIC), None)
        if dynamic is None:
            return ()
        names: list[int] = []
        strings = 0
        entry = struct.Struct(self._order + ("QQ" if self.is_wide else "II"))
        section = self._read(dynamic.offset, min(dynamic.size, _MAX_ENTRIES * entry.size))
        for tag, value in entry.iter_unpack(section[: len(section) // entry.size * entry.size]):
            if tag == _DT_NULL:
                break
            if tag == _DT_NEEDED:
                names.append(value)
            elif tag == _DT_STRTAB:
                strings = self._offset_of(value)
        return tuple(self._name(strings + name) for name in names)

    def _segment(self, position: int) -> Segment:
        self._file.seek(position)
        if self.is_wide:
            kind, _, offset, address, _, size = self._unpack("IIQQQQ")
        else:
            kind, offset, address, _, size = self._unpack("IIIII")
        return Segment(kind, offset, address, size)

    def _offset_of(self, address: int) -> int:
        for segment in self.segments:
            if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
                return address - segment.address + segment.offset
        raise ValueError("damaged ELF file: an address outside every segment")

    def _name(self, offset: int) -> str:
        name, end, _ = self._read(offset, _MAX_NAME_BYTES).partition(b"\0")
        if not end:
            raise ValueError("damaged ELF file: a name without an end")
        return name.decode()

    def _unpack(self, fields: str) -> tuple[int, ...]:
        layout = struct.Struct(self._order + fields)
        return layout.unpack(self._file.read(layout.size))

    def _read(self, offset: int, count: int) -> bytes:
        try:
            self._file.seek(offset)
        except OverflowError as error:
            raise ValueError(f"damaged ELF file: {error}") from error
        return self._file.read(count)


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


def read_linkage(file: BinaryIO) -> Linkage:
    """What a program or library of 64-bit little-endian machines needs.

    Raises:
        ValueError: it is no such file, or is damaged.
    """
    elf = ElfFile(file)
    if not (elf.is_wide and elf.is_little):
        raise ValueError("not a 64-bit little-endian ELF file")
    return Linkage(elf.machine, elf.interpreter().decode(), elf.needed())
