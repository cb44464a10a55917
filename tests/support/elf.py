"""A static x86-64 program written by hand: no compiler on the test host is needed for an image from scratch."""

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
