"""banger's own program that becomes the command, the last step of every exec: ``data/become.s``."""

from __future__ import annotations

import struct
from importlib import resources

#: Where it is loaded, all in one piece; nothing in it depends on the place.
_BASE = 0x400000
_HEADER, _PROGRAM_HEADER = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_EXECUTABLE, _X86_64, _LOAD, _READ_EXECUTE, _PAGE = 2, 62, 1, 5, 0x1000


def become_program() -> bytes:
    """A static x86-64 executable: ELF header, one program header ("ELF-64 Object File Format"), the code."""
    code = bytes.fromhex((resources.files("banger.guest") / "data" / "become.hex").read_text())
    start = _HEADER.size + _PROGRAM_HEADER.size
    size = start + len(code)
    identity = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = _HEADER.pack(
        identity, _EXECUTABLE, _X86_64, 1, _BASE + start, _HEADER.size, 0, 0, 64, _PROGRAM_HEADER.size, 1, 0, 0, 0
    )
    return header + _PROGRAM_HEADER.pack(_LOAD, _READ_EXECUTE, 0, _BASE, _BASE, size, size, _PAGE) + code
