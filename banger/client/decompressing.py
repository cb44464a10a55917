"""A stream that gzip, bzip2 or xz may have compressed, as it was before: in pieces of bounded size, whatever it holds.

Several streams on end are one, as they are for those programs (pbzip2 and pigz write them so).
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from banger.client.archive import Receive

_PIECE_BYTES = 64 << 10
#: Of what a window may take; ``xz -9`` needs 65 MiB.
_MOST_MEMORY_BYTES = 256 << 20
#: As much as it takes to tell them apart.
_HEAD_BYTES = 10
_BZIP2, _BZIP2_BLOCK, _BZIP2_END = b"BZh", b"1AY&SY", b"\x17rE8P\x90"
#: The usual properties, and the lower half of a dictionary's size, of which the upper half is not zero. An archive of a
#: file called "]" begins in the same way, and goes on with zeros.
_LZMA = b"]\0\0"


class _Decoder(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """The decompressor of :mod:`zlib` with the interface of the others."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)


def decompressing(receive: Receive) -> Receive:
    """Gives what ``receive`` gives, decompressed if it is compressed.

    What it returns raises ``ValueError`` for a damaged stream.
    """
    head = bytearray()
    while len(head) < _HEAD_BYTES and (data := receive()):
        head += data
    make = _decoder_of(bytes(head))
    pieces = _plain(bytes(head), receive) if make is None else _decompressed(bytes(head), receive, make)
    return lambda: next(pieces, b"")


def _decoder_of(head: bytes) -> Callable[[], _Decoder] | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return _Gzip
    if head.startswith(_BZIP2) and head[4:10] in (_BZIP2_BLOCK, _BZIP2_END):
        return bz2.BZ2Decompressor
    if head.startswith(b"\xfd7zXZ\0") or (head.startswith(_LZMA) and any(head[3:5])):
        return lambda: lzma.LZMADecompressor(memlimit=_MOST_MEMORY_BYTES)
    return None


def _plain(head: bytes, receive: Receive) -> Iterator[bytes]:
    while head:
        yield head
        head = receive()


def _decompressed(data: bytes, receive: Receive, make: Callable[[], _Decoder]) -> Iterator[bytes]:
    while data:
        decoder = make()
        while not decoder.eof:
            if decoder.needs_input and not data and not (data := receive()):
                raise ValueError("the compressed data ends in the middle")
            piece, data = _step(decoder, data), b""
            if piece:
                yield piece
        data = decoder.unused_data.lstrip(b"\0")  # what fills up a block of a tape
        while not data and (more := receive()):
            data = more.lstrip(b"\0")


def _step(decoder: _Decoder, data: bytes) -> bytes:
    try:
        return decoder.decompress(data, _PIECE_BYTES)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # bz2 has no error of its own
        raise ValueError(f"the compressed data is damaged: {error}") from error
