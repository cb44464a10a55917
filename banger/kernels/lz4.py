"""The LZ4 legacy frame, in which ``lz4 -l`` packs kernels. Its blocks are the library's, which knows newer frames only.

Format: ``lz4_Frame_format.md`` of the LZ4 project, section "Legacy frame".
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
    from lz4.block import LZ4BlockError, decompress  # noqa: PLC0415  # for the few kernels that are packed so

    if not data.startswith(_FRAME_MAGIC):
        raise ValueError("not an LZ4 legacy frame")
    out = bytearray()
    position = len(_FRAME_MAGIC)
    while position + 4 <= len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if position + size > len(data):
            raise ValueError("LZ4 frame ends inside a block")
        try:
            block = decompress(data[position : position + size], uncompressed_size=_BLOCK_BYTES)
        except LZ4BlockError as error:
            raise ValueError(f"damaged LZ4 block: {error}") from None
        out += block
        position += size
        if len(block) < _BLOCK_BYTES:
            break
    return bytes(out)
