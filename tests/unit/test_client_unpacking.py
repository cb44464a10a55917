"""Archives from a guest are not trusted: whatever they hold, nothing outside the target changes."""

from __future__ import annotations

import io
import stat
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from banger.client.packing import pack
from banger.client.unpacking import link_stays_inside, unpack
from banger.core.errors import BangerError, ErrorKind

Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **facts: object) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in facts.items():
        setattr(info, field, value)
    return info, data


def archive(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def receiver(data: bytes, step: int = 700) -> Callable[[], bytes]:
    pieces = (data[i : i + step] for i in range(0, len(data), step))
    return lambda: next(pieces, b"")


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
    assert outside.read_text() == "untouched"
    assert names_in(target.parent) == ["outside", "target"]


@pytest.mark.parametrize("linkname", ["/etc", "..", "../outside", "x/../../..", "sub/../../outside"])
def test_link_out_of_the_tree_is_left_out_and_told(target: Path, linkname: str) -> None:
    data = archive(TOP, entry("d/link", tarfile.SYMTYPE, linkname=linkname), entry("d/after", data=b"1"))
    assert unpack(receiver(data), target, "d") == [f"d/link: a link out of the copied tree, to {linkname}"]
    assert names_in(target / "d") == ["after"]


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
    unpack(receiver(data), target, "d")
    assert outside.read_text() == "untouched"
    assert not (target / "d/s/climb").is_symlink()


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
    assert outside.read_text() == "untouched"


def test_source_that_is_itself_a_link_is_refused_with_its_target(target: Path) -> None:
    data = archive(entry("localtime", tarfile.SYMTYPE, linkname="/usr/share/zoneinfo/UTC"))
    with pytest.raises(BangerError, match='symbolic link to "/usr/share/zoneinfo/UTC"'):
        unpack(receiver(data), target, "localtime")
    assert names_in(target) == []


@pytest.mark.parametrize("data", [b"", b"not a tar" * 100, archive(TOP, entry("d/x", data=b"1" * 2000))[:-12000]])
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


@pytest.mark.parametrize(
    ("depth", "linkname", "inside"),
    [
        (0, "a", True),
        (0, "./a/b", True),
        (0, "..", False),
        (1, "..", True),
        (2, "../../a", True),
        (2, "../../../a", False),
        (5, "a/..", False),
        (5, "/a", False),
        (0, "..a/b", True),
    ],
)
def test_link_stays_inside_counts_directories(depth: int, linkname: str, inside: bool) -> None:
    assert link_stays_inside(depth, linkname) is inside


def test_packed_tree_comes_back_the_same(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "deep").mkdir(parents=True)
    (source / "a").write_bytes(b"A" * 100_000)
    (source / "sub" / "deep" / "b").write_text("b")
    (source / "sub" / "link").symlink_to("../a")
    (source / "a").chmod(0o640)
    pieces: list[bytes] = []
    pack(source, "top", pieces.append)
    assert unpack(receiver(b"".join(pieces)), target, "copy") == []
    assert (target / "copy" / "a").read_bytes() == b"A" * 100_000
    assert stat.S_IMODE((target / "copy" / "a").stat().st_mode) == 0o640
    assert (target / "copy" / "sub" / "deep" / "b").read_text() == "b"
    assert (target / "copy" / "sub" / "link").readlink() == Path("../a")


def test_packing_stops_at_once_when_nobody_takes_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A" * 1_000_000)
    sent: list[bytes] = []

    def send(data: bytes) -> None:
        sent.append(data)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path, "top", send)
    assert len(sent) == 1


def test_unreadable_source_is_denied(tmp_path: Path) -> None:
    with pytest.raises(BangerError) as raised:
        pack(tmp_path / "nothing", "top", lambda _: None)
    assert raised.value.kind is ErrorKind.DENIED
