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


def unpack(data: bytes, media_type: str = "") -> bytes:
    """Everything that comes out; checks that input and chunks are accounted for."""
    consumed: list[int] = []
    _, chunks = decompressed(io.BytesIO(data), media_type, consumed.append)
    parts = list(chunks)
    assert sum(consumed) == len(data)
    assert all(0 < len(part) <= 256 << 10 for part in parts)
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
def test_gzip_bomb_comes_out_in_small_chunks() -> None:
    bomb = gzip.compress(bytes(16 * MIB), 9)
    tracemalloc.start()
    try:
        _, chunks = decompressed(io.BytesIO(bomb), "", lambda _: None)
        total = sum(map(len, chunks))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert total == 16 * MIB
    assert peak < 4 * MIB


def test_zstd_of_many_frames_is_unpacked_to_the_end() -> None:
    skippable = struct.pack("<II", 0x184D2A50, 5) + b"hello"
    data = zstd(TAR[:100_000]) + skippable + zstd(TAR[100_000:]) + skippable

    assert unpack(data) == TAR


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


def test_empty_layer_is_refused() -> None:
    with pytest.raises(BangerError, match="empty"):
        unpack(b"")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (zstd(TAR), "application/vnd.oci.image.layer.v1.tar+gzip"),
        (gzip.compress(TAR), "application/vnd.oci.image.layer.v1.tar+zstd"),
    ],
    ids=["zstd-as-gzip", "gzip-as-zstd"],
)
def test_media_type_of_the_other_compression_is_refused(data: bytes, media_type: str) -> None:
    with pytest.raises(BangerError, match="not"):
        unpack(data, media_type)


@pytest.mark.parametrize(
    ("data", "media_type", "expected"),
    [
        (TAR, "application/vnd.docker.image.rootfs.diff.tar.gzip", Compression.NONE),
        (gzip.compress(TAR), "application/vnd.oci.image.layer.v1.tar", Compression.GZIP),
        (zstd(TAR), "application/vnd.oci.image.layer.v1.tar+zstd", Compression.ZSTD),
    ],
    ids=["plain-as-gzip", "gzip-as-plain", "zstd"],
)
def test_media_type_that_is_merely_careless_is_accepted(data: bytes, media_type: str, expected: Compression) -> None:
    compression, chunks = decompressed(io.BytesIO(data), media_type, lambda _: None)

    assert compression is expected
    assert b"".join(chunks) == TAR
