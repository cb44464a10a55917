"""Archives from a guest are not trusted: whatever they hold, nothing outside the target changes."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from banger.client.unpacking import unpack
from banger.core.errors import BangerError, ErrorKind
from tests.support.tars import Member, archive, entry, receiver
from tests.support.waiting import eventually


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file beside the target that no archive may touch."""
    path = tmp_path / "outside"
    path.write_text("untouched")
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


TOP = entry("d", tarfile.DIRTYPE)


def test_tree_is_made_with_modes_links_and_times(target: Path) -> None:
    data = archive(
        entry("d", tarfile.DIRTYPE, mode=0o550),
        entry("d/run", data=b"#!", mode=0o4755, mtime=1_000_000),
        entry("d/sub", tarfile.DIRTYPE),
        entry("d/sub/up", tarfile.SYMTYPE, linkname="../run"),
        entry("d/same", tarfile.LNKTYPE, linkname="d/run"),
    )
    assert unpack(receiver(data), target, "copy") == []
    run = target / "copy" / "run"
    assert run.read_bytes() == b"#!"
    assert stat.S_IMODE(run.stat().st_mode) == 0o755, "no setuid bit may come from a guest"
    assert run.stat().st_mtime == 1_000_000
    assert (target / "copy" / "sub" / "up").readlink() == Path("../run")
    assert (target / "copy" / "same").stat().st_ino == run.stat().st_ino
    assert stat.S_IMODE((target / "copy").stat().st_mode) == 0o550


def test_contents_go_straight_into_the_target(target: Path) -> None:
    unpack(receiver(archive(TOP, entry("d/a", data=b"1"))), target, "")
    assert (target / "a").read_text() == "1"


def test_archive_of_the_root_has_no_topmost_name(target: Path) -> None:
    unpack(receiver(archive(entry("./", tarfile.DIRTYPE), entry("./etc/x", data=b"1"))), target, "root")
    assert (target / "root" / "etc" / "x").read_text() == "1"


@pytest.mark.parametrize(
    "member",
    [
        entry("/d/outside", data=b"evil"),
        entry("d/../../outside", data=b"evil"),
        entry("../outside", data=b"evil"),
        entry("e/outside", data=b"evil"),
        entry("d/hard", tarfile.LNKTYPE, linkname="../outside"),
        entry("d/hard", tarfile.LNKTYPE, linkname="/etc/passwd"),
        entry("d/hard", tarfile.LNKTYPE, linkname="d/nothing"),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].linkname}",
)
def test_member_that_points_out_of_the_archive_ends_the_copy(target: Path, outside: Path, member: Member) -> None:
    with pytest.raises(BangerError) as raised:
        unpack(receiver(archive(TOP, member)), target, "d")
    assert raised.value.kind in (ErrorKind.INVALID, ErrorKind.DENIED)
    assert outside.read_text(encoding="utf-8") == "untouched"
    assert names_in(target.parent) == ["outside", "target"]


def test_hard_link_to_what_was_there_before_ends_the_copy(target: Path) -> None:
    """A home directory is copied into: a guest must not give the owner's key a second name in a public place."""
    (target / "key").write_text("secret")
    written = (target / "key").stat().st_ctime_ns
    eventually(lambda: _time_of_a_file_in(target) > written, what="a tick of the file system's clock")
    with pytest.raises(BangerError, match="cannot be trusted") as raised:
        unpack(receiver(archive(TOP, entry("d/public", tarfile.LNKTYPE, linkname="d/key"))), target, "")
    assert raised.value.cause == "it is a link to a file that was here before"
    assert names_in(target) == ["key"]
    assert (target / "key").stat().st_nlink == 1


def _time_of_a_file_in(directory: Path) -> int:
    with tempfile.TemporaryFile(dir=directory) as file:
        return os.fstat(file.fileno()).st_ctime_ns


@pytest.mark.parametrize("linkname", ["/etc", "..", "../outside", "x/../../..", "sub/../../outside", "nowhere"])
def test_link_is_kept_as_text_wherever_it_points(target: Path, outside: Path, linkname: str) -> None:
    data = archive(TOP, entry("d/link", tarfile.SYMTYPE, linkname=linkname, mtime=5), entry("d/after", data=b"1"))
    assert unpack(receiver(data), target, "d") == []
    assert str((target / "d" / "link").readlink()) == linkname
    assert (target / "d" / "link").lstat().st_mtime == 5
    assert names_in(target / "d") == ["after", "link"]
    assert outside.read_text(encoding="utf-8") == "untouched"


@pytest.mark.parametrize(
    "later",
    [
        entry("d/link/x", data=b"evil"),
        entry("d/link", data=b"evil"),
        entry("d/link/sub", tarfile.DIRTYPE, mode=0o777),
        entry("d/link/", tarfile.DIRTYPE, mode=0o777),
        entry("d/hard", tarfile.LNKTYPE, linkname="d/link/outside"),
        entry("d/link/s", tarfile.SYMTYPE, linkname="x"),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].type!r}",
)
def test_nothing_that_comes_later_passes_through_a_link(target: Path, outside: Path, later: Member) -> None:
    before = target.parent.stat()
    with suppress(BangerError):
        unpack(receiver(archive(TOP, entry("d/link", tarfile.SYMTYPE, linkname="../.."), later)), target, "d")
    assert outside.read_text(encoding="utf-8") == "untouched"
    assert names_in(target.parent) == ["outside", "target"]
    assert target.parent.stat().st_mode == before.st_mode


def test_link_of_an_earlier_copy_is_not_followed_by_the_next(target: Path, outside: Path) -> None:
    unpack(receiver(archive(TOP, entry("d/l", tarfile.SYMTYPE, linkname=str(target.parent)))), target, "d")
    with pytest.raises(BangerError):
        unpack(receiver(archive(TOP, entry("d/l", tarfile.DIRTYPE), entry("d/l/outside", data=b"evil"))), target, "d")
    with pytest.raises(BangerError, match="cannot be trusted"):
        unpack(receiver(archive(TOP, entry("d/l/outside", data=b"evil"))), target, "d")
    assert outside.read_text(encoding="utf-8") == "untouched"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_device_is_left_out_and_told(target: Path, kind: bytes) -> None:
    assert unpack(receiver(archive(TOP, entry("d/node", kind))), target, "d") == ["d/node: a device or a pipe"]
    assert names_in(target / "d") == []


def test_chain_of_links_cannot_lead_out(target: Path, outside: Path) -> None:
    """Each link alone looks harmless when read as text; followed one through the other they climb."""
    data = archive(
        TOP,
        entry("d/s", tarfile.DIRTYPE),
        entry("d/s/here", tarfile.SYMTYPE, linkname=".."),
        entry("d/s/climb", tarfile.SYMTYPE, linkname="here/../outside"),
        entry("d/s/climb/x", data=b"evil"),
    )
    with pytest.raises(BangerError, match="cannot be trusted"):
        unpack(receiver(data), target, "d")
    assert outside.read_text(encoding="utf-8") == "untouched"
    assert names_in(target.parent) == ["outside", "target"]


def test_file_behind_a_link_of_the_archive_ends_the_copy(target: Path) -> None:
    data = archive(
        TOP,
        entry("d/s", tarfile.DIRTYPE),
        entry("d/l", tarfile.SYMTYPE, linkname="s"),
        entry("d/l/x", data=b"evil"),
    )
    with pytest.raises(BangerError, match="cannot be trusted"):
        unpack(receiver(data), target, "d")


def test_link_that_is_in_the_way_is_replaced_not_followed(target: Path, outside: Path) -> None:
    (target / "d").mkdir()
    (target / "d" / "x").symlink_to(outside)
    unpack(receiver(archive(TOP, entry("d/x", data=b"new"))), target, "d")
    assert (target / "d" / "x").read_text() == "new"
    assert outside.read_text(encoding="utf-8") == "untouched"


def test_source_that_is_itself_a_link_arrives_as_one(target: Path) -> None:
    data = archive(entry("localtime", tarfile.SYMTYPE, linkname="/usr/share/zoneinfo/UTC"))
    (target / "localtime").write_text("a file makes room")
    assert unpack(receiver(data), target, "localtime") == []
    assert (target / "localtime").readlink() == Path("/usr/share/zoneinfo/UTC")


@pytest.mark.parametrize(
    "member",
    [
        entry("x", data=b"new"),
        entry("x", tarfile.SYMTYPE, linkname="y"),
    ],
    ids=["file", "link"],
)
def test_directory_is_not_replaced_by_a_file(target: Path, member: Member) -> None:
    (target / "x").mkdir()
    with pytest.raises(BangerError, match="is a directory") as raised:
        unpack(receiver(archive(member)), target, "x")
    assert raised.value.kind is ErrorKind.CONFLICT
    assert names_in(target) == ["x"]


@pytest.mark.parametrize("record", [("mtime", "nan"), ("mtime", "1e400"), ("path", "d/a\0b"), ("linkpath", "a\0b")])
def test_record_that_no_file_can_have_is_invalid(target: Path, record: tuple[str, str]) -> None:
    buffer = io.BytesIO()
    info, _ = entry("d/x", tarfile.SYMTYPE if record[0] == "linkpath" else tarfile.REGTYPE)
    info.pax_headers = dict([record])
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(TOP[0])
        tar.addfile(info)
    with pytest.raises(BangerError) as raised:
        unpack(receiver(buffer.getvalue()), target, "d")
    assert raised.value.kind is ErrorKind.INVALID


def test_headers_without_end_are_invalid(target: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    with pytest.raises(BangerError) as raised:
        unpack(receiver((header.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * 5000), target, "d")
    assert raised.value.kind is ErrorKind.INVALID


def test_long_runs_of_zeros_become_holes(target: Path) -> None:
    data = b"a" * 1000 + bytes(8 << 20) + b"z" + bytes(3 << 20)
    unpack(receiver(archive(entry("x", data=data)), 1 << 16), target, "x")
    assert (target / "x").read_bytes() == data
    assert (target / "x").stat().st_blocks * 512 < 2 << 20


def test_directories_keep_sticky_bits_and_times_whether_new_or_there(target: Path) -> None:
    (target / "d" / "old").mkdir(parents=True)
    data = archive(
        entry("d", tarfile.DIRTYPE, mode=0o2700, mtime=7),
        entry("d/old", tarfile.DIRTYPE, mode=0o1777, mtime=8),
        entry("d/old/x", data=b"1"),
    )
    unpack(receiver(data), target, "d")
    found = [(stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime) for path in (target / "d", target / "d" / "old")]
    assert found == [(0o700, 7), (0o1777, 8)]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_owner_is_kept_only_when_asked(target: Path) -> None:
    data = archive(entry("d", tarfile.DIRTYPE, uid=5, gid=6), entry("d/x", data=b"1", uid=7, gid=8, mode=0o4711))
    for keep_owner, owners in ((False, {(0, 0)}), (True, {(5, 6), (7, 8)})):
        unpack(receiver(data), target, f"d{keep_owner}", keep_owner=keep_owner)
        made = [target / f"d{keep_owner}", target / f"d{keep_owner}" / "x"]
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == owners
        assert stat.S_IMODE(made[1].stat().st_mode) == 0o711


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a tar" * 100,
        archive(TOP, entry("d/x", data=b"1" * 2000))[:-12000],
        archive(TOP, TOP)[:900],
        archive(TOP)[:512] + b"x" * 512,
    ],
)
def test_what_is_no_whole_archive_is_invalid(target: Path, data: bytes) -> None:
    with pytest.raises(BangerError) as raised:
        unpack(receiver(data), target, "d")
    assert raised.value.kind is ErrorKind.INVALID


def test_half_a_file_is_not_left_under_its_name(target: Path) -> None:
    (target / "x").write_text("old")
    data = archive(entry("x", data=b"n" * 5000))[:2048]
    with pytest.raises(BangerError):
        unpack(receiver(data), target, "x")
    assert (target / "x").read_text() == "old"
    assert names_in(target) == ["x"]


def test_two_copies_into_one_directory_do_not_hinder_each_other(target: Path) -> None:
    first, second = archive(entry("a", data=b"1" * 70_000)), archive(entry("b", data=b"2"))
    pieces = iter([first[:30_000], first[30_000:]])

    def receive() -> bytes:
        """The second copy comes in the middle of the first one's file."""
        piece = next(pieces, b"")
        if piece == first[30_000:]:
            unpack(receiver(second), target, "b")
        return piece

    unpack(receive, target, "a")
    assert names_in(target) == ["a", "b"]
    assert (target / "a").stat().st_size == 70_000


def test_huge_extension_header_is_refused_before_it_is_read(target: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40

    def pieces() -> Iterator[bytes]:
        yield header.tobuf(tarfile.GNU_FORMAT)
        for _ in range(64):
            yield bytes(1 << 16)
        raise AssertionError("it reads on and on")

    source = pieces()
    with pytest.raises(BangerError, match="can be read"):
        unpack(lambda: next(source), target, "d")


def test_directory_in_place_of_a_file_is_a_conflict(target: Path) -> None:
    (target / "d").write_text("a file")
    with pytest.raises(BangerError) as raised:
        unpack(receiver(archive(TOP)), target, "d")
    assert raised.value.kind is ErrorKind.CONFLICT


def test_large_file_passes_in_bounded_memory(target: Path) -> None:
    size = 48 << 20

    def pieces() -> Iterator[bytes]:
        yield big_header(size)
        for _ in range(size >> 16):
            yield bytes(1 << 16)
        yield bytes(1024)

    source = pieces()
    tracemalloc.start()
    unpack(lambda: next(source, b""), target, "big")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (target / "big").stat().st_size == size
    assert peak < 8 << 20


def big_header(size: int) -> bytes:
    info = tarfile.TarInfo("big")
    info.size = size
    return info.tobuf()
