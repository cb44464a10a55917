"""Archives of the user's, and of another guest, made into what every guest's tar reads."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.client.repacking import relay, repack
from banger.core.errors import BangerError, ErrorKind
from tests.support.programs import missing_programs
from tests.support.tars import Member, archive, entry, read_archive, receiver

TOP = entry("d", tarfile.DIRTYPE, mode=0o700)


def repacked(data: bytes) -> dict[str, Member]:
    pieces: list[bytes] = []
    repack(receiver(data), pieces.append)
    assert b"PaxHeader" not in b"".join(pieces)
    return read_archive(pieces)


def relayed(data: bytes, top: str = "copy", *, keep_owner: bool = False) -> dict[str, Member]:
    pieces: list[bytes] = []
    relay(receiver(data), pieces.append, top, keep_owner=keep_owner)
    return read_archive(pieces)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_becomes_one(form: int) -> None:
    names = ["short", "d" * 60 + "/" + "n" * 90]
    if form != tarfile.USTAR_FORMAT:
        names += ["ümlaut", "bad\udcff", "n" * 200]
    members = [entry(name, data=name.encode(errors="surrogateescape"), uid=7, uname="app") for name in names]
    members.append(entry("link", tarfile.SYMTYPE, linkname="/" + "t" * 90))
    found = repacked(archive(*members, form=form))
    assert {name: data for name, (info, data) in found.items() if info.isreg()} == {
        name: name.encode(errors="surrogateescape") for name in names
    }
    assert found["link"][0].linkname == "/" + "t" * 90
    assert (found["short"][0].uid, found["short"][0].uname) == (7, "app")


def as_lzma(data: bytes) -> bytes:
    """The format before xz."""
    return lzma.compress(data, lzma.FORMAT_ALONE)


PACKINGS = [gzip.compress, bz2.compress, lzma.compress]


@pytest.mark.parametrize("compress", [*PACKINGS, as_lzma])
def test_compressed_archive_is_taken(compress: Callable[[bytes], bytes]) -> None:
    assert repacked(compress(archive(entry("a", data=b"1"))))["a"][1] == b"1"


@pytest.mark.parametrize("preset", range(10))
def test_archive_in_the_old_format_is_taken_at_every_level(preset: int) -> None:
    packed = lzma.compress(archive(entry("a", data=b"1")), lzma.FORMAT_ALONE, preset=preset)
    assert repacked(packed)["a"][1] == b"1"


def test_plain_archive_whose_first_name_begins_like_compressed_data_is_taken_as_it_is() -> None:
    assert repacked(archive(entry("]", data=b"1")))["]"][1] == b"1"


@pytest.mark.parametrize("compress", PACKINGS)
@pytest.mark.parametrize("padding", [b"", bytes(300)])
def test_compressed_streams_on_end_are_one(compress: Callable[[bytes], bytes], padding: bytes) -> None:
    """As pigz, pbzip2 and ``cat`` make them; tapes and dd fill them up."""
    data = archive(entry("a", data=b"1" * 5000), entry("b", data=b"2"))
    packed = b"".join(compress(data[at : at + 3000]) for at in range(0, len(data), 3000)) + padding
    found = repacked(packed)
    assert (found["a"][1], found["b"][1]) == (b"1" * 5000, b"2")


@pytest.mark.parametrize("compress", PACKINGS)
def test_damaged_compressed_archive_is_invalid(compress: Callable[[bytes], bytes]) -> None:
    packed = compress(archive(*(entry(f"f{number}", data=bytes([number]) * 999) for number in range(50))))
    middle = len(packed) // 2
    for damaged in (packed[:middle], packed[:middle] + b"\xa5" * 20 + packed[middle + 20 :], packed[:12]):
        with pytest.raises(BangerError) as raised:
            repacked(damaged)
        assert raised.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize("compress", PACKINGS)
def test_archive_that_grows_a_thousandfold_takes_no_memory(compress: Callable[[bytes], bytes]) -> None:
    packed = compress(archive(entry("zeros", data=bytes(24 << 20))))
    sent = 0

    def count(data: bytes) -> None:
        nonlocal sent
        sent += len(data)

    tracemalloc.start()
    repack(receiver(packed, 1 << 16), count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent > 24 << 20
    assert peak < 12 << 20  # of which xz takes 8 MiB for its window


def test_kinds_that_only_gnu_tar_has_become_plain_ones() -> None:
    data = archive(
        entry("label", b"V"),
        entry("d/", b"D", data=b"Yx\0\0"),
        entry("d/x", data=b"1"),
        entry("rest", b"M", data=b"2"),
        entry("odd", b"Q", data=b"3"),
    )
    found = repacked(data)
    assert {name: (info.type, content) for name, (info, content) in found.items()} == {
        "d": (tarfile.DIRTYPE, b""),
        "d/x": (tarfile.REGTYPE, b"1"),
        "odd": (tarfile.REGTYPE, b"3"),
    }


@pytest.mark.skipif(bool(missing_programs("tar")), reason="no tar")
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_file_of_gnu_tar_arrives_with_its_holes_as_zeros(tmp_path: Path, form: str) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    command = ["tar", "-c", "-S", f"--format={form}", "-C", str(tmp_path), "sparse"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(data) < 1 << 19
    assert repacked(data)["sparse"][1] == bytes(1 << 20) + b"end"


def test_stream_is_read_to_its_end_so_that_its_writer_meets_no_broken_pipe() -> None:
    source = io.BytesIO(archive(entry("a", data=b"1")) + bytes(1 << 20))
    repack(lambda: source.read(4096), lambda _: None)
    assert source.read() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 2000,
        gzip.compress(archive(entry("a", data=b"1" * 5000)))[:40],
        archive(entry("a", data=b"1" * 5000))[:3000],
    ],
)
def test_what_is_no_whole_archive_is_invalid(data: bytes) -> None:
    with pytest.raises(BangerError) as raised:
        repacked(data)
    assert raised.value.kind is ErrorKind.INVALID


def test_tree_of_a_guest_gets_its_new_name_and_root_as_owner() -> None:
    data = archive(
        TOP, entry("d/a", data=b"1", uid=7, gid=8, uname="app"), entry("d/h", tarfile.LNKTYPE, linkname="d/a")
    )
    found = relayed(data)
    assert sorted(found) == ["copy", "copy/a", "copy/h"]
    assert found["copy"][0].mode == 0o700
    assert found["copy/h"][0].linkname == "copy/a"
    assert (found["copy/a"][0].uid, found["copy/a"][0].uname) == (0, "")
    assert relayed(data, keep_owner=True)["copy/a"][0].gid == 8
    assert sorted(relayed(data, "")) == ["a", "h"]


@pytest.mark.parametrize(
    "member",
    [
        entry("/d/x", data=b"evil"),
        entry("d/../x", data=b"evil"),
        entry("e/x", data=b"evil"),
        entry("d/l/x", data=b"evil"),
        entry("d/l/s/x", data=b"evil"),
        entry("d/h", tarfile.LNKTYPE, linkname="/etc/passwd"),
        entry("d/h", tarfile.LNKTYPE, linkname="d/../../x"),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].linkname}",
)
def test_member_that_leaves_the_tree_reaches_no_other_guest(member: Member) -> None:
    with pytest.raises(BangerError, match="cannot be trusted"):
        relayed(archive(TOP, entry("d/l", tarfile.SYMTYPE, linkname="/etc"), member))


def test_link_of_a_guest_reaches_the_other_as_text() -> None:
    assert relayed(archive(TOP, entry("d/l", tarfile.SYMTYPE, linkname="/etc")))["copy/l"][0].linkname == "/etc"
