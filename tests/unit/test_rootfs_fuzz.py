"""Damaged input of any kind ends in an answer or in ``invalid``: never in another exception."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
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
from tests.support.sparse_archives import sparse_old, sparse_pax

#: How long the layer reader is fed with nonsense: `make fuzz` takes ten minutes for it.
FUZZ_S = float(os.environ.get("FUZZ_SECONDS", "3"))
#: What was found once, a file each. A failure adds its own.
CORPUS = Path(__file__).parent.parent / "corpus" / "layers"

SOUND = archive(
    directory(b"d"),
    gnu_long(b"d/" + b"n" * 120) + file(b"-", b"long"),
    pax((b"path", b"d/pax"), (b"mtime", b"1.5"), (b"size", b"3")) + file(b"-", b"abc"),
    xattrs({b"user.a": b"v"}) + file(b"d/x", b"data" * 300),
    sparse_old(b"old", 50_000, *((index * 8000, b"x" * 10) for index in range(6))),
    sparse_pax(b"new", 50_000, (0, b"a"), (9000, b"b" * 700)),
    sparse_pax(b"map", 50_000, (0, b"a"), (9000, b"b"), version="0.1"),
    sparse_pax(b"rec", 50_000, (0, b"a"), (9000, b"b"), version="0.0"),
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
        _, chunks = decompressed(io.BytesIO(damaged(packed, at, replacement)), lambda _: None)
        for _ in chunks:
            pass


# -- for as long as it takes -----------------------------------------------------------------------------

_NAMES = st.sampled_from([b"a", b"b", b"a/b", b"../x", b"/", b".wh.a", b"a/.wh..wh..opq", b"n" * 90, b"", b"a\0b"])
_NUMBERS = st.sampled_from([0, 1, 511, 512, 4096, 65536, 2**31, 2**32 - 1, 2**33, 2**63 - 1, 2**64])
_DATA = st.binary(max_size=1300)
_PARTS = st.lists(st.tuples(st.integers(0, 20_000), st.binary(max_size=600)), max_size=30)
_KEYS = st.sampled_from(
    b"path linkpath size uid gid mtime comment SCHILY.xattr.user.a GNU.sparse.major GNU.sparse.minor GNU.sparse.map "
    b"GNU.sparse.name GNU.sparse.size GNU.sparse.realsize GNU.sparse.numblocks GNU.sparse.offset GNU.sparse.numbytes".split()
)
_VALUES = st.one_of(
    st.binary(max_size=30),
    _NUMBERS.map(lambda number: str(number).encode()),
    st.sampled_from([b"", b"1", b"0", b"-1", b"0,1", b"0,1,5,2", b"1.5", b"a", b"../../x"]),
)
_MEMBERS = st.one_of(
    st.builds(file, _NAMES, _DATA),
    st.builds(directory, _NAMES),
    st.builds(symlink, _NAMES, _NAMES),
    st.builds(hard_link, _NAMES, _NAMES),
    st.builds(gnu_long, _NAMES, st.sampled_from([b"L", b"K"])),
    st.builds(lambda records, kind: pax(*records, kind=kind), st.lists(st.tuples(_KEYS, _VALUES), max_size=6),
              st.sampled_from([b"x", b"x", b"x", b"g"])),
    st.builds(lambda name, kind, size: header(name, kind, size=size), _NAMES, st.binary(min_size=1, max_size=1), _NUMBERS),
    st.builds(lambda name, size, parts: sparse_old(name, size, *parts), _NAMES, _NUMBERS, _PARTS),
    st.builds(lambda name, size, parts, version: sparse_pax(name, size, *parts, version=version), _NAMES, _NUMBERS, _PARTS,
              st.sampled_from(["0.0", "0.1", "1.0"])),
    st.sampled_from([SOUND[at : at + 512] for at in range(0, len(SOUND), 512)]),
    st.just(bytes(512)),
)  # fmt: skip
_EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=12), st.booleans()), max_size=4)
_LAYERS = st.lists(st.tuples(st.lists(_MEMBERS, max_size=8), _EDITS), min_size=1, max_size=3)


def layer_of(members: list[bytes], edits: list[tuple[int, bytes, bool]]) -> bytes:
    """An archive with some of its bytes changed, and checksums that agree again where it is told."""
    data = archive(*members)
    for at, replacement, reseals in edits:
        data = damaged(data, at, replacement)
        if reseals:
            start = at % len(data) // 512 * 512
            data = data[:start] + reseal(data[start : start + 512].ljust(512, b"\0")) + data[start + 512 :]
    return data


def outcome(layers: list[bytes], chunk: int) -> tuple[str, list[bytes]]:
    """What comes of the layers, read in chunks of some size: an error's words, or the paths of the tree."""
    begun = time.monotonic()
    try:
        found = "", sorted(merged(*layers, chunk=chunk))
    except BangerError as error:
        assert error.kind is ErrorKind.INVALID, error
        assert error.message.isprintable()
        found = error.message, []
    assert time.monotonic() - begun < 5.0, "it took too long"
    for path in found[1]:
        assert not {b"..", b"."} & set(path.split(b"/")), path
    return found


def check(layers: list[bytes]) -> None:
    """It is read or refused, and how the bytes arrive makes no difference."""
    assert outcome(layers, 1000) == outcome(layers, 61)


def kept(layers: list[bytes]) -> None:
    """The same; what fails becomes a file of the corpus, and so a test."""
    try:
        check(layers)
    except BaseException:
        whole = b"".join(len(layer).to_bytes(8, "big") + layer for layer in layers)
        CORPUS.mkdir(parents=True, exist_ok=True)
        (CORPUS / f"{hashlib.sha256(whole).hexdigest()[:16]}.layers").write_bytes(whole)
        raise


@pytest.mark.slow
@pytest.mark.timeout(FUZZ_S + 300)
def test_layers_fuzzed_for_a_while_are_read_or_refused() -> None:
    """By time, not by examples; every round draws anew."""
    end, rounds = time.monotonic() + FUZZ_S, 0

    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    @given(_LAYERS)
    def one_round(layers: list[tuple[list[bytes], list[tuple[int, bytes, bool]]]]) -> None:
        if time.monotonic() < end:
            kept([layer_of(*layer) for layer in layers])

    while time.monotonic() < end:
        one_round()
        rounds += 1
    print(f"{rounds} rounds of 200 archives")


@pytest.mark.parametrize("found", sorted(CORPUS.glob("*.layers")), ids=lambda path: path.stem)
def test_layers_that_were_trouble_once_are_none_any_more(found: Path) -> None:
    whole, layers, at = found.read_bytes(), [], 0
    while at < len(whole):
        size = int.from_bytes(whole[at : at + 8], "big")
        layers.append(whole[at + 8 : at + 8 + size])
        at += 8 + size
    check(layers)
