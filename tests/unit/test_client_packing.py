"""Trees of this host as tar streams: names, kinds, links, and sizes that are those of what follows."""

from __future__ import annotations

import os
import socket
import stat
import tarfile
import threading
from pathlib import Path

import pytest

from banger.client import fixed_size
from banger.client.packing import pack
from banger.client.unpacking import unpack
from banger.core.errors import BangerError, ErrorKind
from tests.support.tars import Member, read_archive, receiver


def packed(source: Path, top: str = "top", *, keep_owner: bool = False) -> dict[str, Member]:
    pieces: list[bytes] = []
    pack(source, top, pieces.append, keep_owner=keep_owner)
    return read_archive(pieces)


def test_packed_tree_comes_back_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub" / "deep").mkdir(parents=True)
    target.mkdir()
    (source / "a").write_bytes(b"A" * 100_000)
    (source / "sub" / "deep" / "b").write_text("b")
    (source / "sub" / "link").symlink_to("../a")
    os.link(source / "a", source / "sub" / "same")
    (source / "a").chmod(0o640)
    (source / "sub").chmod(0o1700)
    os.utime(source / "a", (-5, -5))
    pieces: list[bytes] = []
    pack(source, "top", pieces.append)
    assert unpack(receiver(b"".join(pieces)), target, "copy") == []
    copy = target / "copy"
    assert (copy / "a").read_bytes() == b"A" * 100_000
    assert stat.S_IMODE((copy / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((copy / "sub").stat().st_mode) == 0o1700
    assert (copy / "a").stat().st_mtime == -5
    assert (copy / "sub" / "deep" / "b").read_text() == "b"
    assert (copy / "sub" / "link").readlink() == Path("../a")
    assert (copy / "sub" / "same").stat().st_ino == (copy / "a").stat().st_ino


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"-dash", b" ", b"l" * 255, "ümlaut".encode(), b"a\\b"])
def test_name_of_any_bytes_arrives(tmp_path: Path, name: bytes) -> None:
    source = os.fsencode(tmp_path) + b"/s"
    os.mkdir(source)  # noqa: PTH102  # bytes
    Path(os.fsdecode(source + b"/" + name)).write_text("1", encoding="utf-8")
    pieces: list[bytes] = []
    pack(Path(os.fsdecode(source)), "top", pieces.append)
    unpack(receiver(b"".join(pieces)), tmp_path, "t")
    assert os.listdir(os.fsencode(tmp_path) + b"/t") == [name]  # noqa: PTH208  # bytes
    plain = tarfile.TarInfo("./" + os.fsdecode(name)).tobuf(tarfile.GNU_FORMAT)
    assert name[:90] in plain
    assert b"PaxHeader" not in b"".join(pieces), "not every busybox reads those"


def test_links_of_every_kind_stay_links(tmp_path: Path) -> None:
    for name, text in (("abs", "/etc/passwd"), ("up", "../../.."), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(text)
    found = packed(tmp_path)
    assert {name: info.linkname for name, (info, _) in found.items() if info.issym()} == {
        "top/abs": "/etc/passwd",
        "top/up": "../../..",
        "top/dangling": "nowhere",
    }
    assert packed(tmp_path / "abs", "x")["x"][0].linkname == "/etc/passwd"


def test_pipe_is_not_opened_and_socket_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    found = packed(tmp_path)
    assert sorted(found) == ["top", "top/pipe"]
    assert found["top/pipe"][0].isfifo()


def test_owner_is_root_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1")
    assert packed(tmp_path / "f")["top"][0].uid == 0
    if os.getuid() == 0:
        os.chown(tmp_path / "f", 5, 6)
        info, _ = packed(tmp_path / "f", keep_owner=True)["top"]
        assert (info.uid, info.gid, info.uname, info.gname) == (5, 6, "", "")


@pytest.mark.parametrize(
    "path", ["/proc/cpuinfo", "/proc/self/status", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
def test_file_of_the_kernel_comes_with_its_content(path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"no {path} here")
    info, data = packed(Path(path))["top"]
    assert info.size == len(data) > 0
    assert data.split()[0] == Path(path).read_bytes().split()[0]


def test_content_without_a_size_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a large table of the kernel looks like: 0 bytes, and more than one reading's worth of them."""
    monkeypatch.setattr(fixed_size, "HEAD_BYTES", 16)
    expected = Path("/proc/self/limits").read_bytes()
    assert len(expected) > 16
    info, data = packed(Path("/proc/self/limits"))["top"]
    assert (info.size, data) == (len(expected), expected)


def test_content_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_size, "HEAD_BYTES", 16)
    monkeypatch.setattr(fixed_size, "MOST_UNSIZED_BYTES", 64)
    with pytest.raises(BangerError, match="no size of its own") as raised:
        packed(Path("/proc/self/limits"))
    assert raised.value.kind is ErrorKind.EXHAUSTED


@pytest.mark.parametrize("head", [16, 1 << 20])
def test_log_that_grows_gives_a_whole_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: int) -> None:
    monkeypatch.setattr(fixed_size, "HEAD_BYTES", head)
    log, stop = tmp_path / "log", threading.Event()
    log.write_bytes(b"line\n" * 1000)

    def grow() -> None:
        with log.open("ab") as file:
            while not stop.wait(0.0001):
                file.write(b"line\n" * 100)
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(20):
            info, data = packed(tmp_path)["top/log"]
            assert info.size == len(data) >= 5000
            assert data.startswith(b"line\n" * 1000)
    finally:
        stop.set()
        writer.join()


def test_file_that_is_cut_while_it_is_read_ends_the_copy(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(8 << 20))
    sent: list[bytes] = []

    def cut(data: bytes) -> None:
        sent.append(data)
        os.truncate(tmp_path / "big", 10)

    with pytest.raises(BangerError, match="became shorter") as raised:
        pack(tmp_path, "top", cut)
    assert raised.value.kind is ErrorKind.CONFLICT
    assert not b"".join(sent).endswith(bytes(1024)) or len(b"".join(sent)) < 8 << 20, "the archive is not completed"


def test_file_that_is_deleted_before_its_turn_is_none_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A" * 100_000)
    (tmp_path / "b").write_text("deleted while a is sent")
    pieces: list[bytes] = []

    def send(data: bytes) -> None:
        (tmp_path / "b").unlink(missing_ok=True)
        pieces.append(data)

    pack(tmp_path, "top", send)
    assert sorted(read_archive(pieces)) == ["top", "top/a"]


def test_file_replaced_by_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BangerError, match="replaced"), fixed_size.open_fixed_size(tmp_path / "pipe"):
        pass


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
