"""Sparse files in archives: all of GNU tar's formats read the same, and holes stay holes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import GIB, MIB
from banger.rootfs.layer import read_layer
from banger.rootfs.limits import Budget, Limits
from banger.rootfs.nodes import Extent
from banger.rootfs.reader import ChunkReader
from banger.rootfs.tar import TarReader
from tests.support.rootfs import archive, built, directory, file, header, merged, padded, pax, reseal, symlink
from tests.support.sparse_archives import sparse_old, sparse_pax

FORMS: dict[str, Callable[..., bytes]] = {
    "old": sparse_old,
    **{version: (lambda *a, v=version: sparse_pax(*a, version=v)) for version in ("0.0", "0.1", "1.0")},
}
#: What makes GNU tar write each of them.
GNU_TAR = [["--format=gnu"], *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))]
needs_e2fsprogs = pytest.mark.skipif(
    shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None, reason="e2fsprogs is not installed"
)


class FindingsCache:
    """A sink that keeps the last sparse file's pieces."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []

    def store(self, reader: ChunkReader, size: int) -> list[Extent]:
        reader.skip(size)
        return []

    def store_pieces(self, pieces: Iterable[tuple[int, bytes]]) -> list[Extent]:
        self.pieces = list(pieces)
        return []


def read(data: bytes, limits: Limits | None = None) -> tuple[list[tuple[bytes, int]], list[tuple[int, bytes]]]:
    """Names and sizes of the members, and the pieces of the last sparse one."""
    sink, budget = FindingsCache(), Budget(limits or Limits())
    reader = ChunkReader(iter([data[at : at + 700] for at in range(0, len(data), 700)]))
    changes = read_layer(TarReader(reader, budget.limits, end_marker=True, sparse=True), reader, sink, budget)
    return [(path, getattr(node, "size", 0)) for path, node in changes.entries], sink.pieces


def content(pieces: Iterable[tuple[int, bytes]], size: int) -> bytes:
    whole = bytearray(size)
    for offset, data in pieces:
        whole[offset : offset + len(data)] = data
    return bytes(whole)


PARTS = ((0, b"begin"), (5000, b"x" * 700), (6000, b"y"), (200_000, b"z" * 70_000), (1_000_000, b""))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_sparse_file_of_every_format_is_the_same(form: Callable[..., bytes]) -> None:
    found, pieces = read(archive(directory(b"d"), form(b"d/disk", 1_000_000, *PARTS), file(b"after", b"1")))

    assert found == [(b"d", 0), (b"d/disk", 1_000_000), (b"after", 1)]
    expected = bytearray(1_000_000)
    for offset, data in PARTS:
        expected[offset : offset + len(data)] = data
    assert content(pieces, 1_000_000) == expected
    assert sum(len(data) for _, data in pieces) < 80_000
    assert all(offset % 4096 == 0 for offset, _ in pieces)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_sparse_file_without_data_and_one_of_many_parts_are_read(form: Callable[..., bytes]) -> None:
    many = [(index * 10_000, b"%04d" % index) for index in range(100)]

    assert read(archive(form(b"hole", GIB)))[0] == [(b"hole", GIB)]
    found, pieces = read(archive(form(b"many", 10 * MIB, *many)))
    assert found == [(b"many", 10 * MIB)]
    assert len(pieces) == 100


@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")
@needs_e2fsprogs
@pytest.mark.parametrize("options", GNU_TAR, ids=FORMS)
def test_sparse_file_that_gnu_tar_wrote_is_the_same_in_the_image_and_takes_no_room(
    tmp_path: Path, options: list[str]
) -> None:
    chance = random.Random(3)
    disk = tmp_path / "disk"
    with disk.open("wb") as out:
        for index in range(40):  # more parts than the first block of the old format's map holds
            out.seek(index * MIB + 4096 * chance.randrange(200))
            out.write(chance.randbytes(chance.choice([1, 100, 4096, 70_000])))
        out.truncate(50 * MIB)
    packed = tmp_path / "layer.tar"
    subprocess.run(["tar", "--sparse", *options, "-cf", packed, "-C", tmp_path, "disk"], check=True)
    if packed.stat().st_size > 10 * MIB:
        pytest.skip("no holes on this file system")
    folder = tmp_path / "build"
    folder.mkdir()

    found = built(folder, packed.read_bytes(), size_bytes=64 * MIB)

    assert found[b"disk"].data == disk.read_bytes()
    image = next(folder.glob("*.ext4"))
    assert image.stat().st_blocks * 512 < 12 * MIB


ONE = file(b"x", b"a")
V1 = {"major": "1", "minor": "0", "realsize": "1"}


def in_pax(**records: str) -> bytes:
    """A PAX header with records of a sparse file."""
    return pax(*((b"GNU.sparse." + key.encode(), value.encode()) for key, value in records.items()))


HOSTILE = {
    "parts overlap": sparse_old(b"x", 100, (0, b"abc"), (2, b"d")),
    "parts out of order": sparse_pax(b"x", 100, (50, b"abc"), (2, b"d")),
    "part beyond the end": sparse_old(b"x", 10, (8, b"abc")),
    "part beyond every end": sparse_pax(b"x", 10, (2**62, b"abc"), version="0.1"),
    "more data than parts": sparse_old(b"x", 5000, (0, b"abc"), stored=600),
    "less data than parts": sparse_old(b"x", 5000, (0, b"a" * 600), stored=100),
    "map never ends": sparse_old(b"x", 5000, (0, b"a"))[:482] + b"\1" + sparse_old(b"x", 5000, (0, b"a"))[483:],
    "no size": in_pax(map="0,1") + ONE,
    "two sizes": in_pax(size="1", realsize="2", map="0,1") + ONE,
    "size absurd": in_pax(size="9" * 30, map="0,1") + ONE,
    "size beyond the limit": sparse_pax(b"x", 65 * GIB, (0, b"a")),
    "size negative": in_pax(size="-5", map="0,1") + ONE,
    "half a part": in_pax(size="5", map="0,1,2") + ONE,
    "other count": in_pax(size="5", numblocks="3", map="0,1") + ONE,
    "map of words": in_pax(size="5", map="0,one") + ONE,
    "version unknown": in_pax(major="2", minor="0", realsize="1") + file(b"x", padded(b"1\n0\n1\n") + b"a"),
    "both maps": in_pax(**V1, map="0,1") + file(b"x", padded(b"1\n0\n1\n") + b"a"),
    "1.0 count absurd": in_pax(**V1) + file(b"x", padded(b"9" * 18 + b"\n")),
    "1.0 map longer than its data": in_pax(**V1) + file(b"x", b"1\n"),
    "1.0 endless line": in_pax(**V1) + file(b"x", b"1" * 5120),
    "0.0 out of step": in_pax(size="5", numbytes="1", offset="0") + ONE,
    "0.0 and 0.1": in_pax(size="5", map="0,1", offset="0", numbytes="1") + ONE,
    "old and PAX": in_pax(size="5", map="0,1") + sparse_old(b"x", 5, (0, b"a")),
    "a sparse symbolic link": in_pax(size="5", map="0,1") + symlink(b"x", b"y"),
    "for all files": pax((b"GNU.sparse.size", b"5"), kind=b"g") + ONE,
    "old type without GNU's magic": header(b"x", b"S"),
    "name with NUL": sparse_pax(b"a\0b", 5, (0, b"a")),
    "star's own": pax((b"SCHILY.realsize", b"5")) + ONE,
}


@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE)
def test_sparse_file_with_a_lying_map_is_refused(member: bytes) -> None:
    if member[156:157] == b"S":
        member = reseal(member[:512]) + member[512:]
    with pytest.raises(BangerError) as caught:
        read(archive(member))

    assert caught.value.kind is ErrorKind.INVALID


def test_sparse_name_that_leads_out_stays_in_the_tree() -> None:
    assert sorted(merged(archive(sparse_pax(b"../../etc/shadow", 5, (0, b"a"))))) == [b"", b"etc", b"etc/shadow"]


def test_sparse_whiteout_is_passed_over_with_its_data() -> None:
    assert sorted(merged(archive(sparse_old(b".wh.x", 10_000, (0, b"a" * 600)), file(b"b")))) == [b"", b"b"]


def test_sparse_files_scattered_bytes_count_as_the_blocks_they_take() -> None:
    """A block each: an archive of a few kilobytes must not fill the disk unseen."""
    scattered = [(index * 8192, b"x") for index in range(200)]

    with pytest.raises(BangerError, match="unpack to more than"):
        read(archive(sparse_pax(b"x", 10 * MIB, *scattered)), Limits(total_bytes=100 * 1024))


def test_sparse_holes_cost_no_time() -> None:
    members = b"".join(sparse_pax(b"f%d" % index, 60 * GIB, (59 * GIB, b"end")) for index in range(200))

    assert len(read(archive(members))[0]) == 200


def test_sparse_files_are_refused_where_they_are_not_expected() -> None:
    for member in (sparse_old(b"x", 5, (0, b"a")), sparse_pax(b"x", 5, (0, b"a"))):
        data = archive(member)
        reader = ChunkReader(iter([data]))
        with pytest.raises(BangerError, match="sparse file, which is not supported here"):
            list(TarReader(reader, Limits(), end_marker=True))


@given(
    st.sampled_from(list(FORMS.values())),
    st.lists(st.tuples(st.integers(0, 30_000), st.binary(max_size=9000)), max_size=30),
    st.integers(0, 20_000),
)
def test_sparse_file_of_any_shape_is_what_its_parts_say(
    form: Callable[..., bytes], gaps: list[tuple[int, bytes]], tail: int
) -> None:
    at, parts = 0, []
    for gap, data in gaps:
        parts.append((at + gap, data))
        at += gap + len(data)
    expected = bytearray(at + tail)
    for offset, data in parts:
        expected[offset : offset + len(data)] = data

    found, pieces = read(archive(form(b"f", at + tail, *parts)))

    assert found == [(b"f", at + tail)]
    assert content(pieces, at + tail) == expected
