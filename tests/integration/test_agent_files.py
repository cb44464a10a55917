"""The guest agent's own program and files: single ones, directories, trees as tar streams, in both directions."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.agent import messages
from banger.agent.messages import TO_THE_END, Entry, EntryReader, FileKind, PathInfo, Request, Status, WriteFlag
from banger.agent.wire import Kind
from tests.support.agent import PROGRAM as AGENT
from tests.support.agent import Agent, Host, Stream, done, running_agent
from tests.support.tars import Member, archive, entry, read_archive
from tests.support.waiting import eventually

pytest_plugins = ("tests.support.agent_fixtures",)

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")


def well(host: Host, request: Request, stdin: bytes | None = None) -> bytes:
    result = done(host, request, stdin)
    assert result.status == Status.OK, result
    return result.fields


def info(host: Host, path: str) -> PathInfo:
    return PathInfo.decode(well(host, messages.stat(path)))


def listed(host: Host, path: Path, user: str = "") -> dict[bytes, Entry]:
    stream, reader = host.run(messages.list_directory(str(path), user)), EntryReader()
    entries = {found.name: found for found in reader.feed(bytes(stream.out))}
    reader.close()
    assert stream.result is not None
    assert stream.result.status == Status.OK, stream.result
    return entries


def sent(host: Host, path: Path | str) -> tuple[dict[str, Member], list[str]]:
    stream = host.run(messages.get(str(path)))
    assert stream.result is not None
    assert stream.result.status == Status.OK, stream.result
    return read_archive([bytes(stream.out)]), stream.err.decode().splitlines()


def test_path_is_what_it_leads_to_and_a_link_says_where(host: Host, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "new\nline").write_text("12345")
    for name, text in (
        ("to-dir", "dir"),
        ("dangling", "dir/none"),
        ("lost", "no/ne"),
        ("abs", "/no/ne"),
        ("self", "self"),
    ):
        (tmp_path / name).symlink_to(text)
    os.mkfifo(tmp_path / "pipe")
    base = str(tmp_path.resolve())
    expected = {
        "dir": (FileKind.DIRECTORY, FileKind.DIRECTORY, "", ""),
        "new\nline": (FileKind.FILE, FileKind.FILE, "", ""),
        "none": (FileKind.NOTHING, FileKind.NOTHING, "", ""),
        "dir/none/deeper": (FileKind.NOTHING, FileKind.NOTHING, "", ""),
        "new\nline/deeper": (FileKind.NOTHING, FileKind.NOTHING, "", ""),
        "pipe": (FileKind.PIPE, FileKind.PIPE, "", ""),
        "to-dir": (FileKind.DIRECTORY, FileKind.LINK, "dir", f"{base}/dir"),
        "to-dir/": (FileKind.DIRECTORY, FileKind.DIRECTORY, "", ""),
        "dangling": (FileKind.NOTHING, FileKind.LINK, "dir/none", f"{base}/dir/none"),
        "lost": (FileKind.NOTHING, FileKind.LINK, "no/ne", f"{base}/no/ne"),
        "abs": (FileKind.NOTHING, FileKind.LINK, "/no/ne", "/no/ne"),
        "self": (FileKind.NOTHING, FileKind.LINK, "self", f"{base}/self"),
    }
    for name, (leads, kind, target, real) in expected.items():
        seen = info(host, f"{base}/{name}")
        assert (seen.leads_to, seen.entry.kind) == (leads, kind), name
        assert (seen.entry.target.decode(), seen.real_path.decode()) == (target, real), name


def test_entry_has_what_the_kernel_says_of_a_file(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 77)
    file.chmod(0o640)
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    found, facts = info(host, str(file)).entry, file.stat()
    assert (found.mode, found.size, found.links, found.inode) == (0o640, 77, 1, facts.st_ino)
    assert (found.uid, found.gid, found.modified_ns) == (facts.st_uid, facts.st_gid, 1_700_000_000_123_456_789)


def test_directory_is_listed_whole_whatever_its_names(host: Host, tmp_path: Path) -> None:
    names = [b"new\nline", b"\xff\xfe", b"n" * 255, *(b"%d" % i for i in range(500))]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "link").symlink_to("t" * 200)
    entries = listed(host, tmp_path)
    assert set(entries) == {*names, b"link"}
    assert entries[b"link"].target == b"t" * 200


def test_directories_are_made_alone_or_with_what_leads_to_them(host: Host, tmp_path: Path) -> None:
    assert done(host, messages.mkdir(f"{tmp_path}/a/b")).errno == errno.ENOENT
    well(host, messages.mkdir(f"{tmp_path}/a/b/c", 0o700, parents=True))
    assert (tmp_path / "a/b/c").stat().st_mode & 0o7777 == 0o700
    well(host, messages.mkdir(f"{tmp_path}/a/b/c", 0o700, parents=True))
    assert done(host, messages.mkdir(f"{tmp_path}/a/b/c")).errno == errno.EEXIST
    (tmp_path / "file").touch()
    assert done(host, messages.mkdir(f"{tmp_path}/file", parents=True)).errno == errno.EEXIST


def test_trees_are_removed_without_following_links(host: Host, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "stays").touch()
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").touch()
    (tree / "a/link").symlink_to(outside)
    assert done(host, messages.remove(str(tree))).errno == errno.ENOTEMPTY
    well(host, messages.remove(str(tree), tree=True))
    assert not tree.exists()
    (tmp_path / "link").symlink_to(outside)
    well(host, messages.remove(f"{tmp_path}/link", tree=True))
    assert (outside / "stays").exists()
    well(host, messages.remove(str(outside / "stays")))
    well(host, messages.remove(str(outside)))
    assert done(host, messages.remove(str(outside))).errno == errno.ENOENT


def test_file_is_renamed_in_place_of_another(host: Host, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    well(host, messages.rename(f"{tmp_path}/one", f"{tmp_path}/two"))
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    assert (tmp_path / "two").read_text() == "1"


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, TO_THE_END, slice(None)), (3, 5, slice(3, 8)), (99_990, 100, slice(99_990, None)), (200_000, 9, slice(0, 0))],
)
def test_range_of_a_file_is_read(host: Host, tmp_path: Path, offset: int, length: int, expected: slice) -> None:
    data = random.Random(3).randbytes(100_000)
    (tmp_path / "f").write_bytes(data)
    stream = host.run(messages.read(f"{tmp_path}/f", offset, length))
    assert stream.result is not None
    assert (bytes(stream.out), messages.read_u64(stream.result.fields)) == (data[expected], 100_000)


def test_file_is_written_made_cut_and_added_to_as_asked(host: Host, tmp_path: Path) -> None:
    path = f"{tmp_path}/f"
    data = random.Random(4).randbytes(300_000)
    assert done(host, messages.write(path, flags=WriteFlag.NONE), b"").errno == errno.ENOENT
    created = well(host, messages.write(path, mode=0o600, flags=WriteFlag.CREATE | WriteFlag.DURABLE), data)
    assert messages.read_u64(created) == 300_000
    assert Path(path).read_bytes() == data
    assert Path(path).stat().st_mode & 0o7777 == 0o600
    assert done(host, messages.write(path, flags=WriteFlag.EXCLUSIVE), b"").errno == errno.EEXIST
    well(host, messages.write(path, 5), b"in the middle")
    assert Path(path).read_bytes() == data[:5] + b"in the middle" + data[18:]
    well(host, messages.write(path, flags=WriteFlag.TRUNCATE), b"all")
    well(host, messages.write(path, flags=WriteFlag.APPEND), b" of it")
    assert Path(path).read_bytes() == b"all of it"


@pytest.mark.parametrize(
    "request_",
    [messages.stat("etc"), messages.get("etc"), messages.put("etc"), messages.read(""), messages.mkdir("x/../y")],
)
def test_relative_path_is_refused(host: Host, request_: Request) -> None:
    assert done(host, request_, b"").status == Status.BAD_REQUEST


def test_what_is_no_file_is_not_read_as_one(host: Host, tmp_path: Path) -> None:
    assert done(host, messages.read(str(tmp_path))).errno == errno.EISDIR
    assert done(host, messages.list_directory("/etc/passwd")).errno == errno.ENOTDIR
    assert done(host, messages.read(f"{tmp_path}/none")).errno == errno.ENOENT
    assert done(host, messages.get(f"{tmp_path}/none")).errno == errno.ENOENT
    assert done(host, messages.put(f"{tmp_path}/none"), b"").status == Status.NO_DIRECTORY


@pytest.fixture
def open_path(session_root: Path) -> Iterator[Path]:
    """A directory to which everybody may go; those of ``tmp_path`` are root's alone."""
    with tempfile.TemporaryDirectory(dir=session_root) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@as_root
def test_user_may_do_what_the_files_let_it(host: Host, open_path: Path) -> None:
    (open_path / "secret").write_text("x")
    (open_path / "secret").chmod(0o600)
    assert done(host, messages.read(f"{open_path}/secret", user="nobody")).errno == errno.EACCES
    assert done(host, messages.mkdir(f"{open_path}/d", user="nobody")).errno == errno.EACCES
    assert done(host, messages.stat("/etc", user="no one")).status == Status.NO_USER
    well(host, messages.mkdir(f"{open_path}/open", 0o1777))
    well(host, messages.write(f"{open_path}/open/f", user="nobody"), b"mine")
    assert (open_path / "open/f").stat().st_uid == 65534
    assert set(listed(host, open_path / "open", "nobody")) == {b"f"}


def test_tree_is_sent_with_links_as_text_and_names_of_a_file_as_one(host: Host, tmp_path: Path) -> None:
    tree = tmp_path / "-tree"
    tree.mkdir(mode=0o700)
    (tree / "f").write_text("1")
    (tree / "again").hardlink_to(tree / "f")
    (tree / "empty").write_text("")
    (tree / "abs").symlink_to("/etc")
    (tree / ("n" * 200)).symlink_to("t" * 300)
    os.mkfifo(tree / "pipe")
    os.utime(tree / "empty", (0, 1_000_000_000))
    found, told = sent(host, tree)
    assert sorted(found) == sorted(
        ["-tree", *(f"-tree/{name}" for name in ("f", "again", "empty", "abs", "pipe", "n" * 200))]
    )
    assert (found["-tree"][0].mode, found["-tree/abs"][0].linkname, told) == (0o700, "/etc", [])
    assert found["-tree/empty"][0].mtime == 1_000_000_000
    assert found["-tree/" + "n" * 200][0].linkname == "t" * 300
    assert found["-tree/pipe"][0].isfifo()
    assert {found[f"-tree/{name}"][0].islnk() for name in ("f", "again")} == {True, False}
    assert "./f" in sent(host, f"{tree}/.")[0]
    assert sent(host, tree / "empty")[0]["empty"][1] == b""
    assert sent(host, tree / "abs")[0]["abs"][0].issym()


def test_tree_comes_back_as_it_was(host: Host, tmp_path: Path) -> None:
    chance = random.Random(5)
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    copy.mkdir()
    for number in range(40):
        place = tree / "/".join(chance.choice("abc") * chance.randrange(1, 60) for _ in range(chance.randrange(1, 4)))
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"ü{number}"
        file.write_bytes(chance.randbytes(chance.choice([0, 1, 511, 512, 513, 70_000])))
        file.chmod(chance.choice([0o600, 0o4755, 0o444]))
        os.utime(file, (1, number * 1000))
    stream = host.run(messages.get(f"{tree}/."))
    well(host, messages.put(str(copy)), bytes(stream.out))
    facts = [
        {path.relative_to(root): (path.lstat().st_mode, int(path.lstat().st_mtime), path.is_file() and path.read_bytes())
         for path in root.rglob("*")}
        for root in (tree, copy)
    ]  # fmt: skip
    assert facts[0] == facts[1]


def test_socket_in_a_tree_does_not_fail_the_copy(host: Host, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    (tmp_path / "after").write_text("1")
    assert "after" in {Path(name).name for name in sent(host, tmp_path)[0]}


@pytest.mark.parametrize("path", ["/proc/cpuinfo", "/proc/self/limits", "/proc/version"])
def test_file_that_the_kernel_makes_up_comes_with_its_content(host: Host, path: str) -> None:
    found, told = sent(host, path)
    header, data = found[Path(path).name]
    assert data.split()[0] == Path(path).read_bytes().split()[0]
    assert (header.size, header.mode, told) == (len(data), Path(path).stat().st_mode & 0o7777, [])


def test_directory_of_the_kernel_comes_with_content_and_tells_what_it_lacks(host: Host) -> None:
    found, told = sent(host, "/proc/sys/kernel")
    assert found["kernel/ostype"][1] == b"Linux\n"
    names = {line.removeprefix("left out: ").partition(": ")[0] for line in told}
    real = {str(path.relative_to("/proc/sys")) for path in Path("/proc/sys/kernel").rglob("*") if path.is_file()}
    assert {name for name, (header, _) in found.items() if header.isreg()} | names >= real
    assert not names & found.keys()


def test_file_that_never_ends_is_an_error(host: Host) -> None:
    if not Path("/proc/sys/net/ipv4/route/flush").exists():
        pytest.skip("no file here that cannot be read by anybody")
    result = done(host, messages.get("/proc/sys/net/ipv4/route/flush"))
    assert result.message == '"/proc/sys/net/ipv4/route/flush" cannot be read, or not to an end'


@pytest.mark.parametrize(("size", "whole"), [(10, False), (8 << 20, True), (16 << 20, True)])
def test_file_that_changes_its_size_is_whole_or_an_error(host: Host, tmp_path: Path, size: int, whole: bool) -> None:
    (tmp_path / "f").write_bytes(b"x" * (8 << 20))
    stream = host.open(messages.get(f"{tmp_path}/f"), window=2000)
    host.wait(lambda: len(stream.out) == 2000)
    os.truncate(tmp_path / "f", size)
    host.send(stream, Kind.CREDIT, struct.pack("<I", 1 << 29))
    result = host.finish(stream).result
    assert result is not None
    assert (result.status == Status.OK) is whole
    if whole:
        assert read_archive([bytes(stream.out)])["f"][1] == b"x" * (8 << 20)


@as_root
def test_file_systems_of_the_kernel_below_are_left_out_and_told(tmp_path: Path) -> None:
    root = tmp_path / "it's"
    for name in ("proc", "tmp"):
        (root / name).mkdir(parents=True)
    mounts = f'mount -t proc proc "{root}/proc" && mount -t tmpfs tmpfs "{root}/tmp" && echo 1 >"{root}/tmp/f"'
    wrapper = tmp_path / "agent"
    wrapper.write_text(
        f'#!/bin/sh\nexec unshare -m sh -c \'mount --make-rprivate / && {mounts.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)} && exec "$0" "$@"\' {AGENT} "$@"\n'
    )
    wrapper.chmod(0o755)
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this host does not let us mount")
    with running_agent(program=wrapper) as agent:
        found, told = sent(agent.host, root)
    assert sorted(found) == ["it's", "it's/proc", "it's/tmp", "it's/tmp/f"]
    assert told == [f"left out: {root}/proc: a file system of the kernel's own".replace(": /", ": ", 1)]


def test_archive_of_every_form_is_received(host: Host, tmp_path: Path) -> None:
    members = (
        entry("ümlaut", data=b"1"), entry("l", linkname="/etc", kind=b"2"), entry("n" * 200, data=b"2"),
        entry("d" * 150 + "/" + "f" * 60, data=b"3" * 513), entry("d", kind=b"5"), entry("./d//x", data=b"4"),
        entry("hard", linkname="./d/x", kind=b"1"), entry("/abs", data=b"5"), entry("p", kind=b"6"),
        entry("far", linkname="t" * 150, kind=b"2"), entry("sub/", kind=b"5", mode=0o500),
    )  # fmt: skip
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        target = tmp_path / str(form)
        target.mkdir()
        well(host, messages.put(str(target)), archive(*members, form=form))
        assert (target / "ümlaut").read_bytes() == b"1"
        assert (target / ("n" * 200)).read_bytes() == b"2"
        assert (target / ("d" * 150) / ("f" * 60)).read_bytes() == b"3" * 513
        assert (target / "hard").samefile(target / "d/x")
        assert (target / "abs").read_bytes() == b"5"
        assert (target / "p").is_fifo()
        assert str((target / "far").readlink()) == "t" * 150
        assert str((target / "l").readlink()) == "/etc"
        assert (target / "sub").stat().st_mode & 0o777 == 0o500


def test_directories_are_as_the_archive_says_once_they_are_left(host: Host, tmp_path: Path) -> None:
    members = [entry("d", kind=b"5", mode=0o550, mtime=1000)]
    members += [entry(f"d/{n}", kind=b"5", mode=0o511, mtime=n) for n in range(20)]
    members += [entry("d/7/x/y", data=b"1"), entry("d2", kind=b"5", mtime=5), entry("d2/f", data=b"2")]
    well(host, messages.put(str(tmp_path)), archive(*members))
    assert [(tmp_path / f"d/{n}").stat().st_mtime for n in range(20) if n != 7] == [n for n in range(20) if n != 7]
    assert {(tmp_path / f"d/{n}").stat().st_mode & 0o777 for n in range(20)} == {0o511}
    assert ((tmp_path / "d").stat().st_mode & 0o777, (tmp_path / "d").stat().st_mtime) == (0o550, 1000)
    assert (tmp_path / "d2").stat().st_mtime == 5


def test_what_is_there_is_replaced_but_not_a_directory(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/kept").touch()
    well(host, messages.put(str(tmp_path)), archive(entry("link", data=b"new"), entry("dir", kind=b"5", mode=0o711)))
    assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "dir/kept").exists()
    assert (tmp_path / "dir").stat().st_mode & 0o777 == 0o711
    assert done(host, messages.put(str(tmp_path)), archive(entry("dir", data=b"x"))).status == Status.FAILED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 5000,
        archive(entry("a", data=b"1" * 9000))[:4000],
        archive(entry("a", data=b"1" * 9000))[:9999],
        archive(entry("../up", data=b"1")),
        archive(entry("a/../../up", data=b"1")),
        archive(entry("hard", linkname="../../etc/passwd", kind=b"1")),
    ],
)
def test_what_is_no_whole_archive_below_the_directory_is_an_error(host: Host, tmp_path: Path, data: bytes) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    assert done(host, messages.put(str(inside)), data).status == Status.FAILED
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def cancelled(agent: Agent, stream: Stream) -> None:
    agent.host.send(stream, Kind.CANCEL)
    result = agent.host.finish(stream).result
    assert result is not None
    assert result.status == Status.CANCELLED
    eventually(lambda: not agent.children(), what="its process is gone")


def test_copies_that_stand_still_can_be_cancelled(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(4 << 20))
    out = agent.host.open(messages.get(f"{tmp_path}/big"), window=0)
    cancelled(agent, out)
    into = agent.host.open(messages.put(str(tmp_path)))
    cancelled(agent, into)
