"""Recognising kernels and unpacking them, on images built by the boot protocol's table of offsets."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
from collections.abc import Callable

import pytest
import zstandard

from banger.core.errors import BangerError, ErrorKind
from banger.kernels.image_file import KernelFile, extract_vmlinux, fault_of, inspect
from tests.support.elf import static_hello

RELEASE = "6.1.0-56-cloud-amd64"
VMLINUX = b"\x7fELF\x02\x01\x01" + bytes(11) + struct.pack("<H", 62) + bytes(200) + (
    b"Linux version %s (%s)\0" + f"Linux version {RELEASE} (builder@host) (gcc) #1 SMP\0".encode() + b"kernel" * 2000
)  # fmt: skip


def bzimage(payload: bytes, *, loader_flags: int = 1, protocol: int = 0x20F, sectors: int = 4) -> bytes:
    """Boot sector and set-up code, then a stub of the protected-mode kernel with the payload in it."""
    head = bytearray((sectors + 1) * 512)
    version = f"{RELEASE} (builder@host) #1 SMP".encode()
    struct.pack_into("<B", head, 0x1F1, sectors)
    struct.pack_into("<H", head, 0x1FE, 0xAA55)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, protocol)
    struct.pack_into("<H", head, 0x20E, 0x300 - 512)
    head[0x300 : 0x300 + len(version)] = version
    struct.pack_into("<H", head, 0x236, loader_flags)
    stub = bytes(96)
    struct.pack_into("<II", head, 0x248, len(stub), len(payload))
    return bytes(head) + stub + payload + b"relocations"


def with_size(packed: bytes, size: int = len(VMLINUX)) -> bytes:
    """The kernel's build appends the unpacked size."""
    return packed + struct.pack("<I", size)


def vmlinux(code: bytes, *, data: bytes = bytes(8192), name_table: int = 3) -> bytes:
    """A kernel as it is linked: a program header, code at the second page, data behind it, and a table of sections."""
    names = b"\0.text\0.data\0"
    content = code + data + names
    sections = [
        (0,) * 10,
        (1, 1, 6, 0, 4096, len(code), 0, 0, 16, 0),
        (7, 1, 3, 0, 4096 + len(code), len(data), 0, 0, 16, 0),
        (0, name_table, 0, 0, 4096 + len(code) + len(data), len(names), 0, 0, 1, 0),
        (0, 8, 3, 0, 1 << 40, 1 << 30, 0, 0, 1, 0),  # of a section that has nothing in the file, all may be beyond it
    ]
    table = 4096 + len(content)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x1000000, 64, table, 0, 64, 56, 1, 64, len(sections), 3)
    program = struct.pack("<IIQQQQQQ", 1, 5, 4096, 0, 0, len(code), len(code), 0x200000)
    head = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9) + header + program
    return head.ljust(4096, b"\0") + content + b"".join(struct.pack("<IIQQQQIIQQ", *one) for one in sections)


CODE = random.Random(2).randbytes(5 * 4096)


def lz4_of_literals(data: bytes) -> bytes:
    """The simplest valid frame: one block, one sequence, nothing but literals."""
    length, rest = b"", len(data) - 15
    while rest >= 255:
        length, rest = length + b"\xff", rest - 255
    block = b"\xf0" + length + bytes([rest]) + data
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(VMLINUX),
        lzma.compress(VMLINUX, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32),
        lzma.compress(VMLINUX, lzma.FORMAT_ALONE),
        bz2.compress(VMLINUX),
        zstandard.ZstdCompressor().compress(VMLINUX),
        lz4_of_literals(VMLINUX),
    ],
    ids=["gzip", "xz", "lzma", "bzip2", "zstd", "lz4"],
)
def test_bzimage_of_every_packing_gives_its_elf_file(packed: bytes) -> None:
    assert extract_vmlinux(bzimage(with_size(packed))) == VMLINUX


def test_bzimage_with_another_count_of_setup_sectors_gives_its_elf_file() -> None:
    assert extract_vmlinux(bzimage(with_size(gzip.compress(VMLINUX)), sectors=31)) == VMLINUX


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (VMLINUX, "not a bzImage"),
        (b"", "not a bzImage"),
        (bzimage(b"", protocol=0x0206), "not a bzImage"),
        (bzimage(b"\x89LZO\0\r\n" + bytes(40)), "no ELF file"),
        (bzimage(gzip.compress(b"something else")), "no ELF file"),
        (bzimage(gzip.compress(VMLINUX)[:50]), "no ELF file|damaged"),
        (bzimage(b"\xfd7zXZ\x00garbage"), "damaged"),
        (bzimage(b"\x02\x21\x4c\x18\xff\xff\xff\x7f"), "damaged"),
    ],
)
def test_image_without_an_elf_file_is_invalid(image: bytes, words: str) -> None:
    with pytest.raises(BangerError, match=words) as caught:
        extract_vmlinux(image)
    assert caught.value.kind is ErrorKind.INVALID


def test_bzimage_tells_format_machine_and_release() -> None:
    assert inspect(bzimage(b""), "vmlinuz") == KernelFile("bzimage", "amd64", RELEASE)


def test_bzimage_without_a_64_bit_entry_is_for_32_bit_machines() -> None:
    assert inspect(bzimage(b"", loader_flags=0), "vmlinuz").architecture == "386"


def test_elf_kernel_tells_machine_and_release() -> None:
    assert inspect(VMLINUX, "vmlinux") == KernelFile("elf", "amd64", RELEASE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a Linux kernel"),
        (b"#!/bin/sh\n", "not a Linux kernel"),
        (static_hello("Linux"), "a program, not a kernel"),
        (bytes(0x38) + b"ARM\x64" + bytes(4), "for arm64"),
        (gzip.compress(VMLINUX), "not a Linux kernel"),
    ],
)
def test_other_file_is_invalid_and_the_user_is_told_what_to_give(content: bytes, words: str) -> None:
    with pytest.raises(BangerError, match=words) as caught:
        inspect(content, "thing")
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.subject == "thing"
    assert "vmlinuz" in caught.value.hint


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, bz2.compress])
def test_bzimage_whose_payload_was_altered_has_a_fault(pack: Callable[[bytes], bytes]) -> None:
    image = bzimage(with_size(pack(random.Random(1).randbytes(20_000)), 20_000))
    middle = len(image) // 2
    assert fault_of(image) == ""
    damaged = image[:middle] + bytes(byte ^ 0xA5 for byte in image[middle : middle + 64]) + image[middle + 64 :]
    assert "cannot be unpacked" in fault_of(damaged)


def test_kernel_that_was_cut_short_has_a_fault() -> None:
    image = bzimage(with_size(lzma.compress(random.Random(1).randbytes(20_000)), 20_000))
    assert "cut short" in fault_of(image[: len(image) // 2])
    elf = static_hello("hello")
    assert fault_of(elf) == ""
    assert "cut short" in fault_of(elf[:-8])


def test_whole_kernel_without_packing_has_no_fault() -> None:
    assert fault_of(vmlinux(CODE)) == ""
    assert fault_of(vmlinux(CODE, data=bytes(1 << 16))) == "", "data may be zeros"
    assert fault_of(vmlinux(bytes(4000) + CODE)) == "", "less than a page of them may be anywhere"


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (vmlinux(CODE)[:-100], "damaged ELF file"),
        (vmlinux(CODE)[:9000], "cut short"),
        (vmlinux(CODE)[:60], "damaged ELF file"),
        (vmlinux(CODE)[:64] + bytes(56) + vmlinux(CODE)[120:], "nothing in it to be loaded"),
        (vmlinux(CODE[:4096] + bytes(4096) + CODE[8192:]), "a page of its code is blank, at byte 8192"),
        (vmlinux(CODE[:8192] + b"\xff" * 4096 + CODE[12288:]), "a page of its code is blank, at byte 12288"),
        (vmlinux(CODE)[:-320] + bytes(320), "makes no sense"),
        (vmlinux(CODE, name_table=7), "makes no sense"),
        (b"\x7fELF\x01\x01" + bytes(200), "neither a bzImage nor a 64-bit ELF file"),
    ],
)
def test_damage_of_a_kernel_without_packing_is_seen_where_it_leaves_traces(damaged: bytes, words: str) -> None:
    assert words in fault_of(damaged)


@pytest.mark.parametrize("pack", [lz4_of_literals, gzip.compress])
def test_damage_that_the_packing_does_not_tell_is_seen_in_what_is_packed(pack: Callable[[bytes], bytes]) -> None:
    whole, blank = vmlinux(CODE), vmlinux(CODE[:4096] + bytes(4096) + CODE[8192:])
    assert fault_of(bzimage(with_size(pack(whole), len(whole)))) == ""
    assert "blank" in fault_of(bzimage(with_size(pack(blank), len(blank))))
    assert "instead of" in fault_of(bzimage(with_size(pack(whole), len(whole) + 1)))
