"""The reader of dynamic sections, on a program assembled by hand."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.posix.elf import Linkage, read_linkage
from tests.support.elf import dynamic_program, static_hello


def linkage_of(data: bytes) -> Linkage:
    return read_linkage(io.BytesIO(data))


def test_dynamic_program_names_loader_and_libraries() -> None:
    linkage = linkage_of(dynamic_program("/lib64/ld-linux-x86-64.so.2", ["libz.so.1", "libc.so.6"]))
    assert linkage.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert linkage.needed == ("libz.so.1", "libc.so.6")
    assert linkage.machine == 62
    assert not linkage.is_static


def test_static_program_needs_nothing() -> None:
    assert linkage_of(static_hello("hello\n")).is_static


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x01"])
def test_file_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="ELF"):
        linkage_of(data)


@given(st.data())
def test_damaged_program_is_refused_or_read_but_never_crashes(data: st.DataObject) -> None:
    program = bytearray(dynamic_program("/lib/ld.so", ["libc.so.6"]))
    for _ in range(data.draw(st.integers(1, 4))):
        program[data.draw(st.integers(6, len(program) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        linkage_of(bytes(program[: data.draw(st.integers(6, len(program)))]))
