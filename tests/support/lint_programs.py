"""Programs for lints to look at: ELF headers of any architecture, written by hand."""

from __future__ import annotations

import struct

GLIBC = b"/lib64/ld-linux-x86-64.so.2"
MUSL = b"/lib/ld-musl-x86_64.so.1"


def program(interpreter: bytes = b"", *, machine: int = 62, wide: bool = True, big: bool = False) -> bytes:
    """An executable's header with one program header before, and one for, the interpreter (if there is one)."""
    order = ">" if big else "<"
    ident = b"\x7fELF" + bytes([2 if wide else 1, 2 if big else 1, 1]) + bytes(9)
    head_size, entry_size = (64, 56) if wide else (52, 32)
    text = interpreter + b"\0"
    offset = head_size + 2 * entry_size
    pack = struct.Struct(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH")).pack
    head = pack(2, machine, 1, 0, head_size, 0, 0, head_size, entry_size, 2 if interpreter else 1, 0, 0, 0)
    entries = b"".join(
        struct.pack(order + "IIQQQQQQ", kind, 5, offset, 0, 0, size, size, 1)
        if wide
        else struct.pack(order + "IIIIIIII", kind, offset, 0, 0, size, size, 5, 1)
        for kind, size in ((1, 0), (3, len(text)))
    )
    return ident + head + entries + text
