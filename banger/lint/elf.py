"""What a lint wants to know of a program: where it runs, and which loader it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from banger.posix.elf import ElfFile

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
    try:
        elf = ElfFile(file)
        return ElfFacts(_MACHINES.get(elf.machine, f"machine {elf.machine}"), elf.interpreter())
    except ValueError:
        return None
