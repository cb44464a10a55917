"""Decompressing layers: gzip (also with several members), zstd (also with several frames) and plain tar.

How a layer is packed, its first bytes tell. What its media type says of that is a label which builders, registries and
tools that copy have been known to get wrong; the digests of an image are of the bytes, and Docker and containerd go by
those too.

Decompression happens in this process, by libraries of the host; what comes out is bounded chunk by chunk, so that a
bomb costs a counter and never memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, BinaryIO, Protocol, cast

from banger.rootfs import gzip_header
from banger.rootfs.refusals import refused
from banger.rootfs.zstd_frames import begins_frame, data_frames

#: Compressed bytes read at a time, and the most that one step of a decompressor may give back.
INPUT_BYTES = 256 << 10
CHUNK_BYTES = 512 << 10
#: RFC 8878 lets a frame ask for any window; this is the largest that `zstd --ultra` itself makes.
_ZSTD_WINDOW_BYTES = 128 << 20


class Compression(Enum):
    """How a layer is packed."""

    NONE = "tar"
    GZIP = "gzip"
    ZSTD = "zstd"


_UNSUPPORTED = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}
#: What :func:`detect` needs to see.
_HEAD_BYTES = 6


def detect(head: bytes) -> Compression:
    """Tell the compression from the first six bytes of a layer, or all there are; nothing is an empty archive.

    Raises:
        BangerError: ``invalid`` for a compression that OCI does not know.
    """
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise refused(f"the layer is compressed with {name}, which OCI images cannot be")
    if head.startswith(gzip_header.MAGIC[:2]):  # a method that there is none of is damage, not an archive
        return Compression.GZIP
    return Compression.ZSTD if begins_frame(head) else Compression.NONE


class ByteSource(Protocol):
    """Compressed bytes, read forward only."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes more; empty at the end."""
        ...


def decompressed(
    source: ByteSource, on_input: Callable[[int], None], *, junk_may_follow: bool = False
) -> tuple[Compression, Iterator[bytes]]:
    """Open a layer.

    Args:
        source: the layer's bytes, read forward only; the caller closes it.
        on_input: called with the size of each piece read from ``source``; what it raises ends the reading.
        junk_may_follow: leave out what follows the last member of gzip data and is none, as gzip, pigz and Docker do.
            For callers who know the digest of what comes out. (No tool does so with zstd data.)

    Returns:
        The compression, and an iterator of non-empty chunks of at most 512 KiB.

    Raises:
        BangerError: ``invalid``, also from the iterator, if the data is damaged or ends early.
    """
    counted = _Counted(source, on_input)
    compression = detect(counted.peek(_HEAD_BYTES))
    if compression is Compression.GZIP:
        return compression, _gunzip(counted, junk_may_follow=junk_may_follow)
    return compression, _unzstd(counted) if compression is Compression.ZSTD else _plain(counted)


class _Counted:
    """A source that reports what is read from it, and whose beginning can be looked at."""

    def __init__(self, source: ByteSource, on_input: Callable[[int], None]) -> None:
        self._source = source
        self._on_input = on_input
        self._peeked = b""

    def peek(self, count: int) -> bytes:
        """The first ``count`` bytes at least, or all there are: they may arrive one by one."""
        while len(self._peeked) < count and (data := self._read(INPUT_BYTES)):
            self._peeked += data
        return self._peeked

    def read(self, size: int = INPUT_BYTES) -> bytes:
        if self._peeked:
            data, self._peeked = self._peeked, b""
            return data
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._on_input(len(data))
        return data


def _plain(source: _Counted) -> Iterator[bytes]:
    while data := source.read(CHUNK_BYTES):
        yield data


def _gunzip(source: _Counted, *, junk_may_follow: bool) -> Iterator[bytes]:
    new_inflater, error = _gzip_codec()
    data = source.read()
    while data:
        while not gzip_header.header_length(data):
            if not (more := source.read()):
                raise refused("the gzip data ends early")
            data += more
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
        while len(data) < len(gzip_header.MAGIC) and (more := source.read()):
            data = (data + more).lstrip(b"\0")
        if junk_may_follow and not data.startswith(gzip_header.MAGIC):
            while source.read():
                pass
            return


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
    frames = _Frames(data_frames(iter(source.read, b"")))
    reader = decompressor.stream_reader(cast("BinaryIO", frames), read_size=INPUT_BYTES, read_across_frames=True)
    while not frames.ended:
        try:
            chunk = reader.read(CHUNK_BYTES)
        except zstandard.ZstdError as cause:
            raise refused(f"the zstd data is damaged: {cause}") from cause
        if chunk:
            yield chunk


class _Frames:
    """An iterator of pieces for those who want to read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.ended = False

    def read(self, _: int) -> bytes:
        """The next piece, of whatever size."""
        piece = next(self._pieces, b"")
        self.ended = not piece
        return piece
