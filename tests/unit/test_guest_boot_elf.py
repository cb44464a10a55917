"""The reader of dynamic sections, on a program assembled by hand."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.guest.elf import read_linkage
from tests.support.elf import static_hello

_BASE = 0x10000


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
    entries = [(1, offset) for offset in offsets] + [(5, _BASE + table), (0, 0)]
    section = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = dynamic + len(section)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, _BASE, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    segments = [
        (1, 0, size),
        (3, at, len(text)),
        (2, dynamic, len(section)),
    ]
    programs = b"".join(
        struct.pack("<IIQQQQQQ", kind, 4, offset, _BASE + offset, 0, length, length, 8)
        for kind, offset, length in segments
    )
    return identity + header + programs + text + strings + section


def test_dynamic_program_names_loader_and_libraries() -> None:
    linkage = read_linkage(dynamic_program("/lib64/ld-linux-x86-64.so.2", ["libz.so.1", "libc.so.6"]))
    assert linkage.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert linkage.needed == ("libz.so.1", "libc.so.6")
    assert linkage.machine == 62
    assert not linkage.is_static


def test_static_program_needs_nothing() -> None:
    assert read_linkage(static_hello("hello\n")).is_static


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x01"])
def test_file_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="ELF"):
        read_linkage(data)


@given(st.data())
def test_damaged_program_is_refused_or_read_but_never_crashes(data: st.DataObject) -> None:
    program = bytearray(dynamic_program("/lib/ld.so", ["libc.so.6"]))
    for _ in range(data.draw(st.integers(1, 4))):
        program[data.draw(st.integers(6, len(program) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        read_linkage(bytes(program[: data.draw(st.integers(6, len(program)))]))
