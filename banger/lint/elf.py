"""The little of an ELF file that tells where it runs (System V ABI, *ELF Header*, *Program Header*)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

_IDENT_BYTES = 16
_PT_INTERP = 3
#: Program headers and interpreters longer than these are no real ones.
_MAX_HEADERS = 128
_MAX_INTERPRETER_BYTES = 4096
_MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}


@dataclass(frozen=True, slots=True)
class ElfFacts:
    """What a program needs to run.

    Attributes:
        machine: architecture as ``uname -m`` calls it, or ``machine N`` for an unknown number.
        interpreter: path of its dynamic loader; empty for a static program.
    """

    machine: str
    interpreter: bytes


def read_elf(file: BinaryIO) -> ElfFacts | None:
    """Look at a program; ``None`` if it is no ELF file, or a damaged one.

    Args:
        file: seekable; a few hundred bytes of it are read.
    """
    ident = file.read(_IDENT_BYTES)
    if len(ident) < _IDENT_BYTES or ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        return None
    wide, order = ident[4] == 2, "<" if ident[5] == 1 else ">"
    # The rest of the header: type, machine, version, entry, program headers, sections, flags, own size, then counts.
    header = struct.Struct(order + ("HHIQQQIHHH" if wide else "HHIIIIIHHH"))
    try:
        _, machine, _, _, table, _, _, _, size, count = header.unpack(file.read(header.size))
        interpreter = _interpreter(file, wide, order, (table, size, min(count, _MAX_HEADERS)))
    except (struct.error, OverflowError, ValueError):
        return None
    return ElfFacts(_MACHINES.get(machine, f"machine {machine}"), interpreter)


def _interpreter(file: BinaryIO, wide: bool, order: str, table: tuple[int, int, int]) -> bytes:
    """What the first ``PT_INTERP`` segment holds."""
    start, size, count = table
    entry = struct.Struct(order + ("IIQQQQ" if wide else "IIIII"))
    for index in range(count):
        file.seek(start + index * size)
        fields = entry.unpack(file.read(entry.size))
        # 64-bit headers have the flags second, 32-bit ones at the end.
        kind, offset, length = fields[0], fields[2] if wide else fields[1], fields[5] if wide else fields[4]
        if kind == _PT_INTERP:
            file.seek(offset)
            return file.read(min(length, _MAX_INTERPRETER_BYTES)).partition(b"\0")[0]
    return b""
