"""Whatever archive a guest sends: nothing outside the target changes, nothing half is left, and it costs little."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from banger.client import fresh_file
from banger.client.ceiling import Ceiling
from banger.client.repacking import relay, repack
from banger.client.unpacking import unpack
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import GIB
from tests.support.hostile_archives import TIB, TOP, hostile_archives
from tests.support.rootfs import header
from tests.support.sparse_archives import sparse_old, sparse_pax
from tests.support.tars import archive, entry, read_archive, receiver

HOSTILE = dict(hostile_archives())
MOST_MEMORY = 8 << 20


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    (tmp_path / "outside").write_text("untouched")
    return path


def blocks(directory: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def test_hostile_archives_are_many() -> None:
    assert len(HOSTILE) >= 52


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_changes_nothing_outside_and_takes_no_room(target: Path, name: str) -> None:
    before = target.parent.stat().st_mode
    with suppress(BangerError):
        unpack(receiver(HOSTILE[name], 1 << 16), target, "d")
    outside = target.parent / "outside"
    assert (outside.read_text(), stat.S_IMODE(outside.stat().st_mode)) == ("untouched", 0o644)
    assert sorted(path.name for path in target.parent.iterdir()) == ["outside", "target"]
    assert target.parent.stat().st_mode == before
    assert not list(target.rglob(".banger-*"))
    assert blocks(target) < 1 << 20


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith(("sparse file of", "link behind"))])
def test_hostile_archive_reaches_no_other_guest(name: str) -> None:
    sent = bytearray()
    with suppress(BangerError):
        relay(receiver(HOSTILE[name], 1 << 16), sent.extend, "d")
    with suppress(tarfile.TarError):
        for path, (info, _) in read_archive([bytes(sent)]).items():
            assert path == "d" or path.startswith("d/")
            assert ".." not in path.split("/")
            assert not info.islnk() or info.linkname.startswith("d")


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in HOSTILE if "that no file has" in name or name.startswith("time ") or "TiB" in name),
        *(name for name in HOSTILE if name.startswith("PAX header")),
        "headers without end",
        "global headers without end",
        "names of a MiB, stacked",
        "path of a hundred thousand directories",
        "file shorter than nothing",
        "map of a sparse file without end",
        "map of a sparse file that is cut",
        "map without end",
    ],
)
def test_impossible_archive_is_an_error_that_says_so(target: Path, name: str) -> None:
    with pytest.raises(BangerError) as raised:
        unpack(receiver(HOSTILE[name], 1 << 16), target, "d", keep_owner="id that" in name)
    assert raised.value.kind in (ErrorKind.INVALID, ErrorKind.EXHAUSTED)
    assert raised.value.cause
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    "name", ["names of a MiB, stacked", "map of a sparse file without end", "global headers without end"]
)
@pytest.mark.parametrize("whose", ["guest's", "user's"])
def test_absurd_headers_take_no_memory(target: Path, name: str, whose: str) -> None:
    receive = receiver(HOSTILE[name], 1 << 16)
    tracemalloc.start()
    try:
        with pytest.raises(BangerError):
            unpack(receive, target, "d") if whose == "guest's" else repack(receive, lambda _: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY


@pytest.mark.parametrize("size", [64 * GIB, 60 * GIB + 1])
@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
def test_sparse_file_stays_sparse_whatever_its_size(target: Path, form: str, size: int) -> None:
    parts = (4096, b"a" * 100), (size - 5, b"z" * 5)
    data = sparse_old(b"x", size, *parts) if form == "old" else sparse_pax(b"x", size, *parts, version=form)
    unpack(receiver(data + bytes(1024)), target, "x")
    made = target / "x"
    assert made.stat().st_size == size
    assert made.stat().st_blocks * 512 < 1 << 20
    with made.open("rb") as file:
        assert file.read(4196) == bytes(4096) + b"a" * 100
        file.seek(size - 6)
        assert file.read() == b"\0zzzzz"


def test_more_than_the_ceiling_is_told_and_can_be_allowed(target: Path) -> None:
    data = archive(TOP, *(entry(f"d/{number}", data=b"x" * 50_000) for number in range(20)))
    with pytest.raises(BangerError, match="sends more than 500 KiB") as raised:
        unpack(receiver(data), target, "d", most_bytes=500 * 1024)
    assert raised.value.kind is ErrorKind.EXHAUSTED
    assert raised.value.hint == "banger vm cp --max-size 1.0GiB SOURCE TARGET"
    assert blocks(target) < 600_000
    unpack(receiver(data), target, "all", most_bytes=2_000_000)
    assert len(list((target / "all").iterdir())) == 20


def test_sparse_file_above_the_ceiling_is_refused_before_anything_is_written(target: Path) -> None:
    with pytest.raises(BangerError, match="more than 64 GiB"):
        unpack(receiver(sparse_old(b"x", TIB, (0, b"a")) + bytes(1024)), target, "x")
    assert list(target.iterdir()) == []


def test_many_small_entries_count_too(target: Path) -> None:
    data = archive(TOP, *(entry(f"d/{number}", tarfile.DIRTYPE) for number in range(200)))
    with pytest.raises(BangerError, match="sends more than"):
        unpack(receiver(data), target, "d", most_bytes=100 * 4096)
    with pytest.raises(BangerError, match="sends more than"):
        unpack(receiver(archive(entry("d/" + "a/" * 200, tarfile.DIRTYPE))), target, "e", most_bytes=100 * 4096)
    assert len(list(target.rglob("*"))) <= 200


def test_copy_between_guests_has_the_ceiling_too() -> None:
    with pytest.raises(BangerError, match="sends more than"):
        relay(receiver(sparse_old(b"x", TIB, (0, b"a")) + bytes(1024)), lambda _: None, "x")


def test_room_that_is_nearly_gone_ends_the_copy_before_the_disk_is_full(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = os.statvfs_result((4096, 4096, 10_000, 10_000, 10_000, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _: nearly_full)
    with pytest.raises(BangerError, match="not enough room") as raised:
        unpack(receiver(archive(entry("x", data=b"data"))), target, "x")
    assert raised.value.kind is ErrorKind.EXHAUSTED
    assert list(target.iterdir()) == []


def test_room_is_looked_at_again_while_much_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def look(descriptor: int) -> os.statvfs_result:
        looks.append(descriptor)
        return os.statvfs_result((4096, 4096, 1 << 40, 1 << 40, 1 << 40, 9, 9, 9, 0, 255))

    monkeypatch.setattr(os, "fstatvfs", look)
    ceiling = Ceiling(TIB, 7)
    for _ in range(1024):
        ceiling.about_to_write(1 << 20)
    assert 20 < len(looks) < 100


def test_many_devices_are_told_in_bounded_memory(target: Path) -> None:
    name = b"d/" + b"n" * 90
    members = (header(name, b"6") for _ in range(12_000))

    def pieces() -> Iterator[bytes]:
        yield archive(TOP)[:512]
        yield from members
        yield bytes(1024)

    source = pieces()
    assert 1000 < len(unpack(lambda: next(source, b""), target, "d")) < 12_000


def test_directories_without_number_are_not_remembered(target: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield archive(TOP)[:512]
        for number in range(1200):
            yield header(b"d/%d" % (number % 600), b"5", mode=0o755)
        for _ in range(1200):
            yield header(b"d/again", b"5", mode=0o755)
        yield bytes(1024)

    source = pieces()
    tracemalloc.start()
    unpack(lambda: next(source, b""), target, "d")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(list((target / "d").iterdir())) == 601
    assert peak < 400_000


def test_file_in_a_directory_that_is_closed_is_the_source_of_a_later_link(target: Path) -> None:
    data = archive(
        TOP,
        entry("d/closed", tarfile.DIRTYPE, mode=0, mtime=5),
        entry("d/closed/x", data=b"1"),
        entry("d/closed/deeper", tarfile.DIRTYPE, mode=0o500),
        entry("d/y", tarfile.LNKTYPE, linkname="d/closed/x"),
    )
    unpack(receiver(data), target, "d")
    assert (target / "d" / "y").read_bytes() == b"1"
    made = (target / "d" / "closed").stat()
    assert (stat.S_IMODE(made.st_mode), made.st_mtime) == (0, 5)
    assert stat.S_IMODE((target / "d" / "closed" / "deeper").stat().st_mode) == 0o500
    (target / "d" / "closed").chmod(0o700)


COPY = """
import sys
from pathlib import Path
from banger.client import fresh_file
from banger.client.unpacking import unpack
from banger.commands.signals import ending_in_order
if sys.argv[2] == "named":
    fresh_file._nameless = lambda _: -1
with ending_in_order():
    unpack(lambda: sys.stdin.buffer.read1(4096), Path(sys.argv[1]), "x")
"""


@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGTERM, "named"), (signal.SIGHUP, "named"), (signal.SIGTERM, "nameless"), (signal.SIGKILL, "nameless")],
)
def test_file_that_is_under_way_is_gone_with_its_copy(target: Path, number: signal.Signals, how: str) -> None:
    probe = os.open(target, os.O_RDONLY)
    if how == "nameless" and (nameless := fresh_file._nameless(probe)) < 0:
        pytest.skip("no file without a name can be made here")
    if how == "nameless":
        os.close(nameless)
    os.close(probe)
    process = subprocess.Popen([sys.executable, "-c", COPY, str(target), how], stdin=subprocess.PIPE)
    assert process.stdin is not None
    data = archive(entry("x", data=b"n" * (1 << 20)))
    arrived = threading.Event()

    def feed() -> None:
        assert process.stdin is not None
        process.stdin.write(data[:700_000])  # more than a pipe and the reader hold: some of it was written to the disk
        process.stdin.flush()
        arrived.set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert arrived.wait(20)
    feeder.join()
    process.send_signal(number)
    assert process.wait(20) == (-number if number == signal.SIGKILL else 128 + number)
    process.stdin.close()
    assert list(target.iterdir()) == []


def test_file_that_is_there_is_replaced_in_one_step_in_either_way(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for way in ("nameless", "named"):
        if way == "named":
            monkeypatch.setattr(fresh_file, "_nameless", lambda _: -1)
        for content in (b"old", b"new"):
            unpack(receiver(archive(entry("x", data=content))), target, "x")
            assert (target / "x").read_bytes() == content
        assert [path.name for path in target.iterdir()] == ["x"]
