"""The LZ4 decoder, on blocks assembled from the format's description."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.kernels.lz4 import decompress_legacy

MAGIC = b"\x02\x21\x4c\x18"

Sequence = tuple[bytes, int, int]


def length_bytes(value: int) -> bytes:
    """What follows a nibble of 15."""
    return b"\xff" * (value // 255) + bytes([value % 255])


def block(sequences: list[Sequence], tail: bytes) -> bytes:
    """``(literals, offset, match length)`` each, then literals."""
    out = b""
    for literals, offset, match in sequences:
        high, low = min(len(literals), 15), min(match - 4, 15)
        out += bytes([high << 4 | low])
        out += length_bytes(len(literals) - 15) if high == 15 else b""
        out += literals + offset.to_bytes(2, "little")
        out += length_bytes(match - 19) if low == 15 else b""
    high = min(len(tail), 15)
    return out + bytes([high << 4]) + (length_bytes(len(tail) - 15) if high == 15 else b"") + tail


def frame(*blocks: bytes) -> bytes:
    return MAGIC + b"".join(len(data).to_bytes(4, "little") + data for data in blocks)


def expand(sequences: list[Sequence], tail: bytes) -> bytes:
    """The obvious decoder: one byte at a time."""
    out = bytearray()
    for literals, offset, match in sequences:
        out += literals
        for _ in range(match):
            out.append(out[-offset])
    return bytes(out + tail)


@st.composite
def block_sequences(draw: st.DrawFn) -> list[Sequence]:
    sequences: list[Sequence] = []
    size = 0
    for _ in range(draw(st.integers(0, 6))):
        literals = draw(st.binary(min_size=0 if size else 1, max_size=300))
        size += len(literals)
        match = draw(st.integers(4, 600))
        sequences.append((literals, draw(st.integers(1, min(size, 0xFFFF))), match))
        size += match
    return sequences


@given(block_sequences(), st.binary(max_size=300))
def test_block_of_any_sequences_expands_to_what_they_say(sequences: list[Sequence], tail: bytes) -> None:
    assert decompress_legacy(frame(block(sequences, tail))) == expand(sequences, tail)


def test_match_that_overlaps_itself_repeats_its_pattern() -> None:
    assert decompress_legacy(frame(block([(b"ab", 2, 9)], b"!"))) == b"ababababab" + b"a!"


def test_full_block_is_followed_by_the_next_and_a_short_one_is_the_last() -> None:
    full = block([(b"x", 1, (8 << 20) - 1)], b"")
    data = decompress_legacy(frame(full, block([], b"tail"), b"what follows is the kernel's own"))
    assert len(data) == (8 << 20) + 4
    assert data.endswith(b"xtail")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x04\x22\x4d\x18", "not an LZ4"),
        (MAGIC + b"\xff\0\0\0short", "inside a block"),
        (frame(b"\x50abc"), "run past"),
        (frame(b"\x10a\x01"), "inside a sequence"),
        (frame(b"\xf0\xff\xff"), "inside a sequence"),
        (frame(block([(b"a", 2, 4)], b"")), "before its block"),
        (frame(block([(b"a", 0, 4)], b"")), "before its block"),
    ],
)
def test_damaged_frame_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decompress_legacy(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with suppress(ValueError):
        decompress_legacy(MAGIC + data)
