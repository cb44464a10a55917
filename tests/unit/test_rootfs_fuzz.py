"""Damaged input of any kind ends in an answer or in ``invalid``: never in another exception."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterator

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.decompress import decompressed
from tests.support.rootfs import (
    archive,
    directory,
    file,
    gnu_long,
    hard_link,
    header,
    merged,
    pax,
    reseal,
    symlink,
    xattrs,
)

SOUND = archive(
    directory(b"d"),
    gnu_long(b"d/" + b"n" * 120) + file(b"-", b"long"),
    pax((b"path", b"d/pax"), (b"mtime", b"1.5"), (b"size", b"3")) + file(b"-", b"abc"),
    xattrs({b"user.a": b"v"}) + file(b"d/x", b"data" * 300),
    symlink(b"l", b"d"),
    hard_link(b"h", b"d/x"),
    header(b"null", b"3", device=(1, 3)),
    file(b"d/.wh.old"),
)
PACKED = [gzip.compress(SOUND, mtime=0), gzip.compress(SOUND, 0, mtime=0), zstandard.ZstdCompressor().compress(SOUND)]


@contextlib.contextmanager
def only_invalid() -> Iterator[None]:
    """Let pass what may happen."""
    try:
        yield
    except BangerError as error:
        assert error.kind is ErrorKind.INVALID


def damaged(data: bytes, at: int, replacement: bytes) -> bytes:
    at %= len(data)
    return (data[:at] + replacement + data[at + len(replacement) :])[: len(data)]


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=30), st.booleans())
def test_archive_with_changed_bytes_is_read_or_refused(at: int, replacement: bytes, reseals: bool) -> None:
    data = damaged(SOUND, at, replacement)
    if reseals:  # with right checksums, so that the change itself is looked at
        start = at % len(SOUND) // 512 * 512
        data = data[:start] + reseal(data[start : start + 512]) + data[start + 512 :]

    with only_invalid():
        merged(data)


@given(st.integers(0, len(SOUND)))
def test_archive_cut_anywhere_is_read_or_refused(length: int) -> None:
    with only_invalid():
        merged(SOUND[:length])


@given(st.binary(max_size=2000))
def test_archive_of_noise_is_refused_or_empty(noise: bytes) -> None:
    with only_invalid():
        assert list(merged(noise)) == [b""]


@given(st.sampled_from(PACKED), st.integers(0, 10**6), st.binary(min_size=1, max_size=30))
def test_compressed_with_changed_bytes_is_unpacked_or_refused(packed: bytes, at: int, replacement: bytes) -> None:
    with only_invalid():
        _, chunks = decompressed(io.BytesIO(damaged(packed, at, replacement)), "", lambda _: None)
        for _ in chunks:
            pass
