"""Decompression: every way that layers are packed, and every way that they are broken."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
import zstandard

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB
from banger.rootfs.decompress import Compression, decompressed
from tests.support.rootfs import archive, file

TAR = archive(file(b"a", os.urandom(300_000)), file(b"b", b"text " * 100_000))


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def skippable(data: bytes = b"hello", kind: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + kind, len(data)) + data


class Dripping(io.BytesIO):
    """Gives one byte at a time, as a slow registry does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 if size else 0)


def unpack(data: bytes) -> bytes:
    """Everything that comes out; checks that input and chunks are accounted for."""
    consumed: list[int] = []
    _, chunks = decompressed(io.BytesIO(data), consumed.append)
    parts = list(chunks)
    assert sum(consumed) == len(data)
    assert all(0 < len(part) <= 512 << 10 for part in parts)
    return b"".join(parts)


@pytest.fixture(params=["isal", "zlib"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with ISA-L, once on a host that does not have it."""
    name: str = request.param
    if name == "zlib":
        original = importlib.import_module

        def without_isal(module: str) -> Any:
            if module.startswith("isal"):
                raise ImportError(module)
            return original(module)

        monkeypatch.setattr(importlib, "import_module", without_isal)
    else:
        pytest.importorskip("isal")
    return name


def test_plain_tar_comes_through() -> None:
    assert unpack(TAR) == TAR


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize("level", [0, 1, 9])
def test_gzip_is_unpacked(level: int) -> None:
    assert unpack(gzip.compress(TAR, level)) == TAR


@pytest.mark.usefixtures("codec")
def test_gzip_of_many_members_is_unpacked_to_the_end() -> None:
    parts = [TAR[at : at + 77_777] for at in range(0, len(TAR), 77_777)]

    assert unpack(b"".join(gzip.compress(part) for part in [*parts, b""])) == TAR


@pytest.mark.usefixtures("codec")
def test_gzip_padded_with_zeros_is_accepted() -> None:
    assert unpack(gzip.compress(TAR) + bytes(200_000)) == TAR


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize("cut", [1, 4, 8, 9, 1000])
def test_gzip_truncated_is_refused(cut: int) -> None:
    with pytest.raises(BangerError, match="ends early"):
        unpack(gzip.compress(TAR)[:-cut])


@pytest.mark.usefixtures("codec")
def test_gzip_with_wrong_checksum_is_refused() -> None:
    data = bytearray(gzip.compress(TAR))
    data[-8] ^= 1

    with pytest.raises(BangerError, match="damaged") as caught:
        unpack(bytes(data))
    assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.usefixtures("codec")
def test_gzip_followed_by_garbage_is_refused() -> None:
    with pytest.raises(BangerError, match="damaged"):
        unpack(gzip.compress(TAR) + b"garbage" * 10)


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize("junk", [b"x", b"\x1f\x8b", b"\0\0garbage" * 20_000, b"\0" * 100_000 + b"junk"])
def test_gzip_followed_by_junk_ends_before_it_for_those_who_know_the_digest(junk: bytes) -> None:
    consumed: list[int] = []
    data = gzip.compress(TAR) * 2 + junk
    _, chunks = decompressed(io.BytesIO(data), consumed.append, junk_may_follow=True)

    assert b"".join(chunks) == TAR * 2
    assert sum(consumed) == len(data)


@pytest.mark.usefixtures("codec")
def test_gzip_bomb_comes_out_in_small_chunks() -> None:
    bomb = gzip.compress(bytes(16 * MIB), 9)
    tracemalloc.start()
    try:
        _, chunks = decompressed(io.BytesIO(bomb), lambda _: None)
        total = sum(map(len, chunks))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert total == 16 * MIB
    assert peak < 4 * MIB


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize("extra", [b"", b"RA\x06\0" + os.urandom(6), b"xx" + struct.pack("<H", 60_000) + bytes(60_000)])
def test_gzip_with_every_optional_field_is_unpacked(extra: bytes) -> None:
    fields = struct.pack("<H", len(extra)) + extra + b"layer.tar\0" + b"a comment " * 2000 + b"\0"
    head = b"\x1f\x8b\x08\x1e" + bytes(6) + fields  # FHCRC, FEXTRA, FNAME, FCOMMENT
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    member = head + gzip.compress(TAR, mtime=0)[10:]

    assert unpack(member * 2) == TAR * 2


ZSTD_FORMS = {
    "skippable first": skippable() + zstd(TAR),
    "every kind of skippable": b"".join(skippable(b"", kind) for kind in range(16)) + zstd(TAR),
    "pzstd": b"".join(
        skippable(struct.pack("<I", len(part)), 0) + part
        for part in (zstd(TAR[at : at + 100_000]) for at in range(0, len(TAR), 100_000))
    ),
    "seekable": zstd(TAR[:100_000]) + zstd(TAR[100_000:]) + skippable(os.urandom(5000), 14),
    "chunked": zstd(TAR[:10]) + zstd(b"") + zstd(TAR[10:]) + skippable(os.urandom(300_000)) + skippable(bytes(64)),
    "empty frames": zstd(b"") * 70_000 + zstd(TAR) + zstd(b""),
    "without a size": zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(TAR),
    "long window": zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    ).compress(TAR),
}


@pytest.mark.parametrize("data", ZSTD_FORMS.values(), ids=ZSTD_FORMS.keys())
def test_zstd_in_every_valid_form_is_unpacked_to_the_end(data: bytes) -> None:
    assert unpack(data) == TAR


@pytest.mark.parametrize("cut", [1, 2, 5, 1000])
@pytest.mark.parametrize("checksum", [False, True])
def test_zstd_truncated_is_refused(cut: int, checksum: bool) -> None:
    with pytest.raises(BangerError, match="ends early"):
        unpack(zstandard.ZstdCompressor(write_checksum=checksum).compress(TAR)[:-cut])


@pytest.mark.parametrize("data", [zstd(TAR) + skippable()[:-1], zstd(TAR) + b"\x28\xb5"])
def test_zstd_ending_within_a_further_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BangerError, match="ends early"):
        unpack(data)


def test_zstd_followed_by_garbage_is_refused() -> None:
    with pytest.raises(BangerError, match="followed by something else"):
        unpack(zstd(TAR) + b"garbage" * 10)


@pytest.mark.parametrize("data", [gzip.compress(TAR), zstd(TAR), skippable() + zstd(TAR), TAR[:2000]])
def test_layer_that_drips_in_is_recognised_all_the_same(data: bytes) -> None:
    _, chunks = decompressed(Dripping(data), lambda _: None)

    assert b"".join(chunks) == unpack(data)


def test_zstd_damaged_is_refused() -> None:
    data = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(TAR))
    data[-1] ^= 1

    with pytest.raises(BangerError, match="damaged"):
        unpack(bytes(data))


def test_zstd_wanting_a_huge_window_is_refused() -> None:
    # Frame header: magic, descriptor without content size, window of 2^41 bytes.
    with pytest.raises(BangerError, match="damaged"):
        unpack(b"\x28\xb5\x2f\xfd" + b"\x00" + b"\xf8" + bytes(20))


@pytest.mark.parametrize("data", [bz2.compress(b"x"), lzma.compress(b"x")], ids=["bzip2", "xz"])
def test_compression_that_oci_does_not_know_is_named(data: bytes) -> None:
    with pytest.raises(BangerError, match=r"bzip2|xz"):
        unpack(data)


@pytest.mark.parametrize("data", [b"", gzip.compress(b""), zstd(b""), skippable()])
def test_layer_of_nothing_is_an_empty_archive(data: bytes) -> None:
    assert unpack(data) == b""


@pytest.mark.parametrize(
    ("data", "expected"),
    [(TAR, Compression.NONE), (gzip.compress(TAR), Compression.GZIP), (zstd(TAR), Compression.ZSTD)],
    ids=["plain", "gzip", "zstd"],
)
def test_compression_is_told_by_the_bytes(data: bytes, expected: Compression) -> None:
    assert decompressed(io.BytesIO(data), lambda _: None)[0] is expected
