"""Decoder of the LZ4 legacy frame, in which ``lz4 -l`` packs kernels; the standard library has none.

Formats: ``lz4_Frame_format.md`` (section "Legacy frame") and ``lz4_Block_format.md`` of the LZ4 project.
"""

from __future__ import annotations

_FRAME_MAGIC = b"\x02\x21\x4c\x18"
#: What a block holds unpacked; the last one may hold less.
_BLOCK_BYTES = 8 << 20


def decompress_legacy(data: bytes) -> bytes:
    """Unpack a frame: the magic, then blocks with their packed size (32 bits, little-endian) before each.

    A frame ends where its data ends or after a block that is not full; what follows is not looked at, because a
    kernel has its unpacked size there.

    Raises:
        ValueError: the data is damaged.
    """
    if not data.startswith(_FRAME_MAGIC):
        raise ValueError("not an LZ4 legacy frame")
    out = bytearray()
    position = len(_FRAME_MAGIC)
    while position + 4 <= len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if position + size > len(data):
            raise ValueError("LZ4 frame ends inside a block")
        before = len(out)
        out += _unpack_block(data[position : position + size])
        position += size
        if len(out) - before < _BLOCK_BYTES:
            break
    return bytes(out)


def _unpack_block(block: bytes) -> bytearray:
    """A block is a run of sequences: literals to copy, then a match in what is unpacked already."""
    out = bytearray()
    position, end = 0, len(block)
    try:
        while position < end:
            token = block[position]
            position += 1
            literals, position = _length(block, position, token >> 4)
            if position + literals > end:
                raise ValueError("LZ4 literals run past their block")
            out += block[position : position + literals]
            position += literals
            if position == end:  # the last sequence has literals only
                break
            offset = block[position] | block[position + 1] << 8
            length, position = _length(block, position + 2, token & 15)
            _copy_match(out, offset, length + 4)
    except IndexError:
        raise ValueError("LZ4 block ends inside a sequence") from None
    return out


def _length(block: bytes, position: int, nibble: int) -> tuple[int, int]:
    """A length: four bits, and as many further bytes as are 255, and one more."""
    if nibble == 15:
        while True:
            byte = block[position]
            position += 1
            nibble += byte
            if byte != 255:
                break
    return nibble, position


def _copy_match(out: bytearray, offset: int, length: int) -> None:
    start = len(out) - offset
    if offset == 0 or start < 0:
        raise ValueError("LZ4 match points before its block")
    if offset >= length:
        out += out[start : start + length]
    else:  # it overlaps itself: the pattern repeats
        pattern = out[start:]
        out += (pattern * (length // offset + 1))[:length]
