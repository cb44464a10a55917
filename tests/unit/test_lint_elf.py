"""Programs as a lint sees them."""

from __future__ import annotations

import io
import platform
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.lint.elf import ElfFacts, read_elf
from tests.support.lint_programs import GLIBC, MUSL, program


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (program(GLIBC), ElfFacts("x86_64", GLIBC)),
        (program(MUSL), ElfFacts("x86_64", MUSL)),
        (program(), ElfFacts("x86_64", b"")),
        (program(b"/lib/ld-linux.so.2", machine=3, wide=False), ElfFacts("i386", b"/lib/ld-linux.so.2")),
        (program(b"/lib/ld64.so.1", machine=22, big=True), ElfFacts("s390x", b"/lib/ld64.so.1")),
        (program(b"/lib/ld.so.1", machine=20, wide=False, big=True), ElfFacts("ppc", b"/lib/ld.so.1")),
        (program(machine=183), ElfFacts("aarch64", b"")),
        (program(machine=999), ElfFacts("machine 999", b"")),
    ],
)
def test_elf_tells_architecture_and_loader(data: bytes, facts: ElfFacts) -> None:
    assert read_elf(io.BytesIO(data)) == facts


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 9, b"\x7fELF\x09\x01" + bytes(90), program()[:40]])
def test_elf_that_is_none_is_told_from_one(data: bytes) -> None:
    assert read_elf(io.BytesIO(data)) is None


def test_elf_with_a_table_far_outside_is_no_program() -> None:
    data = bytearray(program(GLIBC))
    for table in (1 << 40, (1 << 63) - 1, (1 << 64) - 1):
        data[32:40] = struct.pack("<Q", table)
        assert read_elf(io.BytesIO(data)) is None


@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_elf_with_changed_bytes_is_read_or_not(offset: int, change: bytes) -> None:
    data = bytearray(program(GLIBC))
    data[offset : offset + len(change)] = change
    found = read_elf(io.BytesIO(data))
    assert found is None or len(found.interpreter) <= 4096


def test_elf_of_this_host_is_understood() -> None:
    with Path("/proc/self/exe").open("rb") as file:
        found = read_elf(file)
    assert found is not None
    assert found.machine == platform.machine()
