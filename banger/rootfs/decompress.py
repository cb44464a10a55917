"""Layer bytes, decompressed: gzip (also of many members), zstd (also of many frames) and plain tar.

Decompression happens in this process, by libraries of the host; what comes out is bounded chunk by chunk, so that a
bomb costs a counter and never memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, BinaryIO, Protocol, cast

from banger.rootfs.refusals import refused

#: Compressed bytes read at a time, and the most that one step of a decompressor may give back.
INPUT_BYTES = 64 << 10
CHUNK_BYTES = 128 << 10
#: RFC 8878 lets a frame ask for any window; this is the largest that `zstd --ultra` itself makes.
_ZSTD_WINDOW_BYTES = 128 << 20


class Compression(Enum):
    """How a layer is packed; the value is what its media type says."""

    NONE = "tar"
    GZIP = "gzip"
    ZSTD = "zstd"


_MAGICS = {
    b"\x1f\x8b": Compression.GZIP,
    b"\x28\xb5\x2f\xfd": Compression.ZSTD,
}
_UNSUPPORTED = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}


def detect(head: bytes, media_type: str) -> Compression:
    """Tell the compression from the first bytes of a layer.

    Args:
        head: at least the first six bytes, or all there are.
        media_type: what the manifest says; only naming the *other* compression is an error, as registries are full of
            layers with a careless type.

    Raises:
        BangerError: ``invalid`` for an empty layer, a contradiction, or a compression that OCI does not know.
    """
    if not head:
        raise refused("the layer is empty")
    found = next((kind for magic, kind in _MAGICS.items() if head.startswith(magic)), Compression.NONE)
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise refused(f"the layer is compressed with {name}, which OCI images cannot be")
    for other in (Compression.GZIP, Compression.ZSTD):
        if other.value in media_type and found not in (other, Compression.NONE):
            raise refused(f'the layer is {found.value}, not "{media_type}"')
    return found


class Source(Protocol):
    """Compressed bytes, read forward only."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes more; empty at the end."""
        ...


def decompressed(
    source: Source, media_type: str, on_input: Callable[[int], None]
) -> tuple[Compression, Iterator[bytes]]:
    """Open a layer.

    Args:
        source: the layer's bytes, read forward only; the caller closes it.
        media_type: see :func:`detect`.
        on_input: called with the size of each piece read from ``source``.

    Returns:
        The compression, and an iterator of non-empty chunks of at most 128 KiB.

    Raises:
        BangerError: ``invalid``, also from the iterator, if the data is damaged or ends early.
    """
    counted = _Counted(source, on_input)
    head = counted.read(INPUT_BYTES)
    compression = detect(head, media_type)
    unpack = {Compression.NONE: _plain, Compression.GZIP: _gunzip, Compression.ZSTD: _unzstd}[compression]
    counted.push_back(head)
    return compression, unpack(counted)


class _Counted:
    """A source that reports what is read from it, and whose first piece can be put back."""

    def __init__(self, source: Source, on_input: Callable[[int], None]) -> None:
        self._source = source
        self._on_input = on_input
        self._pushed = b""

    def push_back(self, data: bytes) -> None:
        self._pushed = data

    def read(self, size: int = INPUT_BYTES) -> bytes:
        if self._pushed:
            data, self._pushed = self._pushed, b""
            return data
        data = self._source.read(size)
        self._on_input(len(data))
        return data


def _plain(source: _Counted) -> Iterator[bytes]:
    while data := source.read(CHUNK_BYTES):
        yield data


def _gunzip(source: _Counted) -> Iterator[bytes]:
    new_inflater, error = _gzip_codec()
    data = source.read()
    while data:
        inflater = new_inflater()
        while not inflater.eof:
            data = inflater.unconsumed_tail or data or source.read()
            try:
                chunk = inflater.decompress(data, CHUNK_BYTES)
            except error as cause:
                raise refused(f"the gzip data is damaged: {cause}") from cause
            if not data and not chunk and not inflater.eof:
                raise refused("the gzip data ends early")
            data = b""
            if chunk:
                yield chunk
        # Further members follow directly; zeros after the last one are padding (RFC 1952 is silent, gzip ignores them).
        data = inflater.unused_data.lstrip(b"\0")
        while not data and (more := source.read()):
            data = more.lstrip(b"\0")


def _gzip_codec() -> tuple[Callable[[], Any], type[Exception]]:
    """A maker of gzip decompressors with zlib's interface: Intel's ISA-L where there is one, 2.5 times as fast."""
    codec: Any
    try:
        codec = importlib.import_module("isal.isal_zlib")
    except ImportError:  # not every architecture has it
        codec = importlib.import_module("zlib")
    return lambda: codec.decompressobj(wbits=31), codec.error


def _unzstd(source: _Counted) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415 - most layers are gzip

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    reader = decompressor.stream_reader(cast("BinaryIO", source), read_size=INPUT_BYTES, read_across_frames=True)
    while True:
        try:
            chunk = reader.read(CHUNK_BYTES)
        except zstandard.ZstdError as cause:
            raise refused(f"the zstd data is damaged: {cause}") from cause
        if not chunk:
            return
        yield chunk
