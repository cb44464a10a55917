"""ELF programs written by hand: no compiler on the test host is needed for an image from scratch."""

from __future__ import annotations

import struct

_BASE = 0x400000
_HEADERS = 64 + 56


def static_hello(text: str) -> bytes:
    """A program that writes ``text`` to its standard output and exits with 0.

    The file is an ELF header, one program header (load everything, read and execute), the code and the text.
    """
    data = text.encode()
    code_size = len(_code(0, 0))
    code = _code(_BASE + _HEADERS + code_size, len(data))
    size = _HEADERS + code_size + len(data)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return identity + header + program + code + data


def _code(address: int, length: int) -> bytes:
    return b"".join(
        [
            b"\xb8" + struct.pack("<I", 1),  # mov eax, SYS_write
            b"\xbf" + struct.pack("<I", 1),  # mov edi, stdout
            b"\xbe" + struct.pack("<I", address),  # mov esi, text
            b"\xba" + struct.pack("<I", length),  # mov edx, length
            b"\x0f\x05",  # syscall
            b"\xb8" + struct.pack("<I", 60),  # mov eax, SYS_exit
            b"\x31\xff",  # xor edi, edi
            b"\x0f\x05",  # syscall
        ]
    )


_DYNAMIC_BASE = 0x10000


def dynamic_program(interpreter: str, needed: list[str], machine: int = 62) -> bytes:
    """Three segments: everything, the interpreter's name, the dynamic section; the string table begins with a NUL."""
    strings, offsets = b"\0", []
    for name in needed:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    text = interpreter.encode() + b"\0"
    at = 64 + 3 * 56
    table = at + len(text)
    dynamic = table + len(strings)
    entries = [(1, offset) for offset in offsets] + [(5, _DYNAMIC_BASE + table), (0, 0)]
    section = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = dynamic + len(section)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, _DYNAMIC_BASE, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    segments = [
        (1, 0, size),
        (3, at, len(text)),
        (2, dynamic, len(section)),
    ]
    programs = b"".join(
        struct.pack("<IIQQQQQQ", kind, 4, offset, _DYNAMIC_BASE + offset, 0, length, length, 8)
        for kind, offset, length in segments
    )
    return identity + header + programs + text + strings + section
