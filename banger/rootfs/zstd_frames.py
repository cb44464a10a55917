"""The frames of a zstd stream (RFC 8878), followed without decompressing them.

A decompressor of libzstd takes the end of its input for the end of the data, wherever that comes. Here it is known
whether the last frame is whole. What pzstd, zstd:chunked and the seekable format write beside the data, in skippable
frames, never gets as far as the decompressor.
"""

from __future__ import annotations

from collections.abc import Iterator

from banger.rootfs.refusals import refused

_MAGIC = b"\x28\xb5\x2f\xfd"
#: Sixteen magic numbers that differ in four bits of the first byte, little-endian 0x184D2A50 to 0x184D2A5F.
_SKIPPABLE_END = b"\x2a\x4d\x18"
_RLE, _RESERVED = 1, 3
_CHECKSUM_BYTES = 4


def begins_frame(head: bytes) -> bool:
    """True if ``head``, four bytes at least, is how a frame begins, with data or without."""
    return head.startswith(_MAGIC) or _is_skippable(head[:4])


def data_frames(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What of a stream belongs to frames with data, in pieces of any size.

    Args:
        pieces: the stream; none of them empty.

    Raises:
        BangerError: ``invalid`` for a stream that ends within a frame, or goes on with something else than one.
    """
    stream = _Stream(pieces)
    while not stream.at_end():
        magic = stream.take(4)
        if _is_skippable(magic):
            for _ in stream.pass_on(int.from_bytes(stream.take(4), "little")):
                pass
        elif magic == _MAGIC:
            yield magic
            yield from _frame(stream)
        else:
            raise refused("the zstd data is followed by something else")


def _frame(stream: _Stream) -> Iterator[bytes]:
    """Everything of a frame behind its magic number: RFC 8878, 3.1.1."""
    descriptor = stream.take(1)
    flags = descriptor[0]
    single_segment = flags >> 5 & 1
    content_size_bytes = (single_segment, 2, 4, 8)[flags >> 6]
    dictionary_bytes = (0, 1, 2, 4)[flags & 3]
    yield descriptor + stream.take((1 - single_segment) + dictionary_bytes + content_size_bytes)
    is_last = False
    while not is_last:
        header = stream.take(3)
        fields = int.from_bytes(header, "little")
        is_last, kind, size = bool(fields & 1), fields >> 1 & 3, fields >> 3
        if kind == _RESERVED:
            raise refused("the zstd data is damaged: a block is of a reserved type")
        yield header
        yield from stream.pass_on(1 if kind == _RLE else size)
    if flags & 4:
        yield stream.take(_CHECKSUM_BYTES)


def _is_skippable(magic: bytes) -> bool:
    return magic[1:] == _SKIPPABLE_END and magic[0] >> 4 == 5


class _Stream:
    """Pieces as one sequence of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def at_end(self) -> bool:
        """True if nothing is left."""
        if self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
        return not self._piece

    def pass_on(self, count: int) -> Iterator[bytes]:
        """The next ``count`` bytes as they come."""
        while count:
            if self.at_end():
                raise refused("the zstd data ends early")
            part = self._piece[self._at : self._at + count]
            self._at += len(part)
            count -= len(part)
            yield part

    def take(self, count: int) -> bytes:
        """The same in one."""
        return b"".join(self.pass_on(count))
