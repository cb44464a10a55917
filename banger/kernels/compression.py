"""The compressions of kernel images and modules, told apart by their first bytes."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

import zstandard

from banger.kernels.lz4 import decompress_legacy


class CompressionError(ValueError):
    """The data is damaged, or packed in a way that banger does not read."""


def _gzip(data: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(data)


def _xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)


def _lzma(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data)


def _bzip2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data)


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


#: First bytes to decoder. Every decoder stops at the end of its stream: a kernel's payload has the size appended to it.
_DECODERS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b\x08", _gzip),
    (b"\xfd7zXZ\x00", _xz),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (b"BZh", _bzip2),
    (b"\x5d\x00\x00", _lzma),
    (b"\x02\x21\x4c\x18", decompress_legacy),
)


def decompress(data: bytes) -> bytes:
    """The content of ``data``, which is returned as it is when it begins with none of the known magics.

    Raises:
        CompressionError: it is damaged.
    """
    for magic, decoder in _DECODERS:
        if data.startswith(magic):
            try:
                return decoder(data)
            except (ValueError, EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                raise CompressionError(str(error)) from error
    return data
