"""The sparse stream: what goes in comes out, equal content gives equal bytes, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.bundle.sparse import BLOCK_BYTES, MAGIC, WINDOW_BYTES, SparseStats, decode, encode
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind

END = 2**64 - 1
SIZE = 2 * WINDOW_BYTES + 3 * BLOCK_BYTES + 100
TOKEN = CancelToken()


def stream_of(path: Path) -> tuple[bytes, SparseStats]:
    pieces: list[bytes] = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        stats = encode(descriptor, pieces.append, TOKEN)
    finally:
        os.close(descriptor)
    return b"".join(pieces), stats


def image_of(stream: bytes, target: Path, size: int = SIZE, piece: int = 65536) -> SparseStats:
    def chunks() -> Iterator[bytes]:
        for at in range(0, len(stream), piece):
            yield stream[at : at + piece]

    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        return decode(chunks(), descriptor, TOKEN, size_bytes=size)
    finally:
        os.close(descriptor)


def header(size: int = SIZE, magic: bytes = MAGIC, version: int = 1, block: int = BLOCK_BYTES) -> bytes:
    return struct.pack("<8sIIQ", magic, version, block, size)


def extent(offset: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<QQ", offset, len(data) if length is None else length) + data


def ended(body: bytes, total: int) -> bytes:
    body += struct.pack("<QQ", END, total)
    return body + hashlib.sha256(body).digest()


@given(
    st.integers(0, SIZE),
    st.lists(st.tuples(st.integers(0, SIZE), st.binary(min_size=1, max_size=9000)), max_size=8),
    st.integers(1, 100_000),
)
def test_any_image_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, size: int, writes: list[tuple[int, bytes]], piece: int
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        for offset, data in writes:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    stream, stats = stream_of(source)
    assert image_of(stream, target, size, piece) == stats
    assert target.read_bytes() == source.read_bytes()
    assert stats.size_bytes == size


def test_stream_does_not_depend_on_where_the_file_has_holes(tmp_path: Path) -> None:
    holes, zeros = tmp_path / "holes", tmp_path / "zeros"
    with holes.open("wb") as file:
        file.seek(WINDOW_BYTES + 5)
        file.write(b"data")
        file.truncate(SIZE)
    zeros.write_bytes(holes.read_bytes())
    assert stream_of(holes) == stream_of(zeros)


def test_holes_cost_nothing_in_the_stream_and_on_the_disk(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    size = 10 << 30
    with source.open("wb") as file:
        file.truncate(size)
        file.seek(5 << 30)
        file.write(b"data")
    stream, stats = stream_of(source)
    assert len(stream) < 2 * BLOCK_BYTES
    assert stats.data_bytes == BLOCK_BYTES
    image_of(stream, target, size)
    assert target.stat().st_size == size
    assert target.stat().st_blocks * 512 <= 16 * BLOCK_BYTES


BLOCK = b"x" * BLOCK_BYTES
GOOD = header() + extent(0, BLOCK) + extent(2 * BLOCK_BYTES, BLOCK)
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "another magic": ended(header(magic=b"bgsparsf"), 0),
    "another version": ended(header(version=2), 0),
    "another block size": ended(header(block=512), 0),
    "another size than announced": ended(header(size=SIZE + 1), 0),
    "a size that would fill the disk": ended(header(size=1 << 62), 0),
    "truncated header": header()[:-1],
    "no end": GOOD,
    "truncated extent": (header() + extent(0, BLOCK))[:-1],
    "truncated sum": ended(GOOD, 2 * BLOCK_BYTES)[:-1],
    "extent of nothing": ended(header() + extent(0, b""), 0),
    "extent past the end": ended(header() + extent(SIZE - SIZE % BLOCK_BYTES, BLOCK), BLOCK_BYTES),
    "extent far past the end": ended(header() + extent(1 << 63, BLOCK), BLOCK_BYTES),
    "length that overflows": ended(header() + extent(0, BLOCK, END - 1), BLOCK_BYTES),
    "offset and length that overflow": ended(header() + extent(END - BLOCK_BYTES + 1, BLOCK), BLOCK_BYTES),
    "extent off its block": ended(header() + extent(1, BLOCK), BLOCK_BYTES),
    "extent that ends inside a block": ended(header() + extent(0, b"x"), 1),
    "extents out of order": ended(header() + extent(BLOCK_BYTES, BLOCK) + extent(0, BLOCK), 2 * BLOCK_BYTES),
    "extents that overlap": ended(header() + extent(0, BLOCK * 2) + extent(BLOCK_BYTES, BLOCK), 3 * BLOCK_BYTES),
    "the same extent twice": ended(header() + extent(0, BLOCK) * 2, 2 * BLOCK_BYTES),
    "extent across windows": ended(header() + extent(WINDOW_BYTES - BLOCK_BYTES, BLOCK * 2), 2 * BLOCK_BYTES),
    "extent larger than a window": ended(header() + extent(0, bytes(WINDOW_BYTES + BLOCK_BYTES)), 0),
    "wrong total": ended(GOOD, 2 * BLOCK_BYTES + 1),
    "wrong sum": ended(GOOD, 2 * BLOCK_BYTES)[:-32] + bytes(32),
    "changed data": ended(GOOD, 2 * BLOCK_BYTES).replace(b"xx", b"xy", 1),
    "garbage behind the end": ended(GOOD, 2 * BLOCK_BYTES) + b"\0",
    "a second stream behind the end": ended(GOOD, 2 * BLOCK_BYTES) * 2,
}


def test_hand_made_stream_of_the_documented_form_is_accepted(tmp_path: Path) -> None:
    stats = image_of(ended(GOOD, 2 * BLOCK_BYTES), tmp_path / "image")
    assert stats.data_bytes == 2 * BLOCK_BYTES
    assert (tmp_path / "image").read_bytes() == (BLOCK + bytes(BLOCK_BYTES) + BLOCK).ljust(SIZE, b"\0")


@pytest.mark.parametrize("stream", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_stream_is_refused_and_never_grows_the_disk(tmp_path: Path, stream: bytes) -> None:
    with pytest.raises(BangerError) as caught:
        image_of(stream, tmp_path / "image")
    assert caught.value.kind is ErrorKind.INVALID
    assert (tmp_path / "image").stat().st_size <= SIZE


@given(st.data())
def test_damaged_stream_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    stream = bytearray(ended(GOOD, 2 * BLOCK_BYTES))
    at = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(stream) - 1)))
    mutate: Callable[[int], int] = data.draw(st.sampled_from([lambda b: b ^ 1, lambda b: b ^ 0x80, lambda b: 255 - b]))
    stream[at] = mutate(stream[at])
    target = tmp_path_factory.mktemp("sparse") / "image"
    with pytest.raises(BangerError) as caught:
        image_of(bytes(stream), target)
    assert caught.value.kind is ErrorKind.INVALID
    assert target.stat().st_size <= SIZE


def test_cancelled_encoding_and_decoding_stop(tmp_path: Path) -> None:
    token = CancelToken()
    token.cancel()
    (tmp_path / "image").write_bytes(BLOCK)
    with (tmp_path / "image").open("r+b") as file:
        for act in (
            lambda: encode(file.fileno(), lambda _: None, token),
            lambda: decode(iter([ended(GOOD, 2 * BLOCK_BYTES)]), file.fileno(), token, size_bytes=SIZE),
        ):
            with pytest.raises(BangerError) as caught:
                act()
            assert caught.value.kind is ErrorKind.CANCELLED
