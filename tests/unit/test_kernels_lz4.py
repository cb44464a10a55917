"""LZ4's legacy frame, with blocks by the library and by hand."""

from __future__ import annotations

from contextlib import suppress

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.kernels.lz4 import decompress_legacy

MAGIC = b"\x02\x21\x4c\x18"


def block(data: bytes) -> bytes:
    return lz4.block.compress(data, store_size=False)


def frame(*blocks: bytes) -> bytes:
    return MAGIC + b"".join(len(data).to_bytes(4, "little") + data for data in blocks)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_frame_of_any_content_is_unpacked(data: bytes, repeats: int) -> None:
    content = data * repeats
    assert decompress_legacy(frame(block(content))) == content


def test_full_block_is_followed_by_the_next_and_a_short_one_is_the_last() -> None:
    data = decompress_legacy(frame(block(b"x" * (8 << 20)), block(b"tail"), b"what follows is the kernel's own"))
    assert len(data) == (8 << 20) + 4
    assert data.endswith(b"xtail")


def test_block_of_more_than_a_block_may_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="damaged LZ4 block"):
        decompress_legacy(frame(block(b"x" * ((8 << 20) + 1))))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x04\x22\x4d\x18", "not an LZ4"),
        (MAGIC + b"\xff\0\0\0short", "inside a block"),
        (frame(b"\x50abc"), "damaged LZ4 block"),  # literals run past their block
        (frame(b"\x10a\x01"), "damaged LZ4 block"),  # it ends inside a sequence
        (frame(b"\xf0\xff\xff"), "damaged LZ4 block"),  # and inside a length
        (frame(b"\x10a\x02\x00" + b"\x50abcde"), "damaged LZ4 block"),  # a match points before its block
        (frame(b""), "damaged LZ4 block"),
    ],
)
def test_damaged_frame_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decompress_legacy(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with suppress(ValueError):
        decompress_legacy(MAGIC + data)
