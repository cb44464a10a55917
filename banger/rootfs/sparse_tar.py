"""Sparse files in tar archives: only their data is stored, with a map of its positions.

All four of GNU tar's formats (its manual, *Storing Sparse Files*): the old one, with the map in the header and in
blocks after it, and PAX 0.0, 0.1 and 1.0. As Go's ``archive/tar`` does, a map is taken only if its parts are in order,
do not overlap, lie within the file and add up to just the data that is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from banger.rootfs.ext4.skeleton import BLOCK_BYTES
from banger.rootfs.reader import ChunkReader
from banger.rootfs.refusals import refused

_BLOCK = 512
#: Parts next to each other are handed on together up to this size.
_PIECE_BYTES = 64 << 10
#: Of the old format: where the map begins in the header, in a block after it, and how many entries each holds.
_HEADER_MAP, _HEADER_ENTRIES, _HEADER_MORE = 386, 4, 482
_BLOCK_ENTRIES, _BLOCK_MORE = 21, 504
_REAL_SIZE = slice(483, 495)
_MOST_DIGITS = 19

PREFIX = b"GNU.sparse."
MAP, NAME = PREFIX + b"map", PREFIX + b"name"
#: Repeated in PAX 0.0, once for every part: the one thing in which a PAX header may repeat itself.
OFFSET, BYTES = PREFIX + b"offset", PREFIX + b"numbytes"
_SIZE, _REALSIZE, _COUNT = PREFIX + b"size", PREFIX + b"realsize", PREFIX + b"numblocks"
_MAJOR, _MINOR = PREFIX + b"major", PREFIX + b"minor"


Number = Callable[[bytes], int]
"""How the tar reader reads a number field: never negative, or ``invalid``."""


class Part(NamedTuple):
    """``length`` bytes of data that belong at ``offset`` of the file."""

    offset: int
    length: int


class Sparse(NamedTuple):
    """The map of one file, checked. Everything between its parts, and behind them up to ``size``, is zeros."""

    size: int
    parts: Sequence[Part]

    @property
    def stored(self) -> int:
        """How many bytes of data there are."""
        return sum(part.length for part in self.parts)


def read_old(header: bytes, reader: ChunkReader, limit: int, number: Number, stored: int) -> Sparse:
    """The map of a member of type ``S``: in ``header``, and in the blocks that ``reader`` has next.

    Args:
        header: the member's.
        reader: stands behind the header; stands before the data afterwards.
        limit: bytes that those blocks may take.
        number: reads a number field.
        stored: bytes of data that follow.

    Raises:
        BangerError: ``invalid``.
    """
    parts = _entries(header, _HEADER_MAP, _HEADER_ENTRIES, number)
    more, taken = header[_HEADER_MORE], 0
    while more:
        taken += _BLOCK
        if taken > limit:
            raise _malformed("is longer than any real one")
        block = reader.read(_BLOCK)
        parts += _entries(block, 0, _BLOCK_ENTRIES, number)
        more = block[_BLOCK_MORE]
    return _checked(parts, number(header[_REAL_SIZE]), stored)


def read_pax(records: Mapping[bytes, bytes], reader: ChunkReader, limit: int, stored: int) -> Sparse:
    """The map that PAX ``records`` hold, or (1.0) announce at the beginning of the data. Otherwise as above."""
    size = _only_one(records, _SIZE, _REALSIZE)
    version = (records.get(_MAJOR, b"0"), records.get(_MINOR, b"1"))
    if version == (b"1", b"0"):
        if MAP in records:
            raise _malformed("is there twice")
        values, taken = _read_leading(reader, min(limit, stored))
        stored -= taken
    elif version in ((b"0", b"0"), (b"0", b"1")):
        values = [_decimal(text) for text in records.get(MAP, b"").split(b",") if records.get(MAP)]
        if _COUNT in records and 2 * _decimal(records[_COUNT]) != len(values):
            raise _malformed("has another number of parts than it says")
    else:
        raise _malformed("has an unknown version")
    if len(values) % 2:
        raise _malformed("ends in the middle of a part")
    return _checked([Part(*pair) for pair in zip(values[::2], values[1::2], strict=True)], size, stored)


def pieces(reader: ChunkReader, parts: Iterable[Part]) -> Iterator[tuple[int, bytes]]:
    """The data in ascending pieces, each at a whole block of the file; what is between them is holes.

    The first and the last block of a part are filled up with the zeros that are there in the file.
    """
    start, piece = 0, bytearray()
    for part in parts:
        offset, left = part
        while left:
            if piece and offset // BLOCK_BYTES > (start + len(piece) - 1) // BLOCK_BYTES:
                follows = offset == start + len(piece)
                if not follows or len(piece) >= _PIECE_BYTES:
                    yield start, bytes(piece)
                    piece.clear()
            if not piece:
                start = offset - offset % BLOCK_BYTES
            here = min(left, start + _PIECE_BYTES - offset)
            piece += bytes(offset - start - len(piece))
            piece += reader.read(here)
            offset, left = offset + here, left - here
    if piece:
        yield start, bytes(piece)


def _entries(block: bytes, at: int, count: int, number: Number) -> list[Part]:
    found = []
    for index in range(count):
        entry = block[at + 24 * index : at + 24 * index + 24]
        if not entry[0]:
            break
        found.append(Part(number(entry[:12]), number(entry[12:])))
    return found


def _read_leading(reader: ChunkReader, limit: int) -> tuple[list[int], int]:
    """The lines of numbers before the data, the first saying how many parts follow; and the bytes that they take."""
    text, taken, wanted = b"", 0, 1
    while text.count(b"\n") < wanted:
        if taken + _BLOCK > limit:
            raise _malformed("is longer than its data, or than any real one")
        text += reader.read(_BLOCK)
        taken += _BLOCK
        if wanted == 1 and b"\n" in text:
            wanted += 2 * _decimal(text.partition(b"\n")[0])
            if wanted > limit:
                raise _malformed("is longer than its data, or than any real one")
    return [_decimal(line) for line in text.split(b"\n")[1:wanted]], taken


def _checked(parts: Sequence[Part], size: int, stored: int) -> Sparse:
    end = total = 0
    for part in parts:
        if part.offset < end or part.offset + part.length > size:
            raise _malformed("has parts that are out of order or outside the file")
        end = part.offset + part.length
        total += part.length
    if total != stored:
        raise _malformed("does not fit the data")
    return Sparse(size, parts)


def _only_one(records: Mapping[bytes, bytes], *keys: bytes) -> int:
    found = [records[key] for key in keys if key in records]
    if len(found) != 1:
        raise _malformed("does not say once how large the file is")
    return _decimal(found[0])


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MOST_DIGITS:
        raise _malformed("has a malformed number")
    return int(text)


def _malformed(why: str) -> Exception:
    return refused(f"the map of a sparse file {why}")
