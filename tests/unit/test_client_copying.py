"""What ends up where, by the rules of `docker cp`, and what the guest's complaints become."""

from __future__ import annotations

import io
import os
import posixpath
import socket
import tarfile
from pathlib import Path

import pytest

from banger.client import Client
from banger.client.copying import CopyOptions, copy_across, copy_in, copy_out, local_source
from banger.client.places import CopySource, means_contents, place_in_guest, place_on_host
from banger.client.transfer import PathInfo
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType
from banger.sdk import Machine
from tests.support.fake_api import FakeApi, FrameSession, vm_json
from tests.support.tars import archive, entry, read_archive

pytest_plugins = ("tests.support.cli_fixtures",)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a").write_text("1")
    (tmp_path / "file").write_text("2")
    (tmp_path / "to-dir").symlink_to("dir")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "to-pipe").symlink_to("pipe")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    return tmp_path


def there(path: str, kind: str) -> PathInfo:
    return PathInfo(path.rstrip("/") or "/", kind)


@pytest.mark.parametrize(
    ("source", "target", "kind", "expected"),
    [
        ("file", "/tmp", "directory", ("/tmp", "file")),
        ("file", "/tmp/", "directory", ("/tmp", "file")),
        ("file", "/tmp/new", "missing", ("/tmp", "new")),
        ("file", "/tmp/old", "file", ("/tmp", "old")),
        ("file", "/new", "missing", ("/", "new")),
        ("dir", "/tmp", "directory", ("/tmp", "dir")),
        ("dir/", "/tmp", "directory", ("/tmp", "dir")),
        ("dir/.", "/tmp", "directory", ("/tmp", "")),
        ("dir", "/tmp/new", "missing", ("/tmp", "new")),
        ("dir", "/tmp/new/", "missing", ("/tmp", "new")),
        ("dir/.", "/tmp/new", "missing", ("/tmp", "new")),
        ("dir/../dir", "/tmp", "directory", ("/tmp", "dir")),
        ("dir/..", "/tmp", "directory", ("/tmp", "PARENT")),
        ("to-dir", "/tmp", "directory", ("/tmp", "to-dir")),
        ("to-dir/", "/tmp", "directory", ("/tmp", "to-dir")),
        ("to-dir/.", "/tmp", "directory", ("/tmp", "")),
        ("to-dir", "/tmp/old", "file", ("/tmp", "old")),
        ("dangling", "/tmp", "directory", ("/tmp", "dangling")),
    ],
)
def test_place_in_guest(tree: Path, source: str, target: str, kind: str, expected: tuple[str, str]) -> None:
    directory, top = expected
    _, what = local_source(f"{tree}/{source}", follow_link=False)
    assert place_in_guest(what, target, there(target, kind)) == (directory, tree.name if top == "PARENT" else top)


def test_current_directory_means_what_it_holds(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "dir")
    _, what = local_source(".", follow_link=False)
    assert place_in_guest(what, "/srv", there("/srv", "directory")) == ("/srv", "")
    assert place_in_guest(what, "/srv/new", there("/srv/new", "missing")) == ("/srv", "new")


@pytest.mark.parametrize(
    ("source", "target", "kind", "error"),
    [
        ("file", "/tmp/new/", "missing", ErrorKind.NOT_FOUND),
        ("file", "/tmp/old/", "file", ErrorKind.CONFLICT),
        ("dir", "/tmp/old", "file", ErrorKind.CONFLICT),
        ("to-dir/", "/tmp/old", "file", ErrorKind.CONFLICT),
        ("file", "/dev/null", "other", ErrorKind.CONFLICT),
        ("dir", "/dev/null", "other", ErrorKind.CONFLICT),
    ],
)
def test_place_in_guest_that_cannot_be(tree: Path, source: str, target: str, kind: str, error: ErrorKind) -> None:
    _, what = local_source(f"{tree}/{source}", follow_link=False)
    with pytest.raises(BangerError) as raised:
        place_in_guest(what, target, there(target, kind))
    assert raised.value.kind is error


def test_link_at_the_target_in_the_guest_is_followed() -> None:
    what = CopySource("f", is_directory=False)
    link = PathInfo("/etc/resolv.conf", "file", is_link=True, real_path="/run/resolv.conf")
    assert place_in_guest(what, "/etc/resolv.conf", link) == ("/run", "resolv.conf")
    assert place_in_guest(what, "/l", PathInfo("/l", "directory", is_link=True, real_path="/srv")) == ("/srv", "f")
    assert place_in_guest(what, "/l", PathInfo("/l", "missing", is_link=True, real_path="/srv/x")) == ("/srv", "x")
    assert place_in_guest(what, "/l", PathInfo("/l", "missing", is_link=True)) == ("/", "l")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("missing", ErrorKind.NOT_FOUND),
        ("file/", ErrorKind.NOT_FOUND),
        ("dangling/", ErrorKind.NOT_FOUND),
        ("socket", ErrorKind.CONFLICT),
        ("to-pipe/.", ErrorKind.NOT_FOUND),
    ],
)
def test_local_source_that_cannot_be_copied(tree: Path, source: str, error: ErrorKind) -> None:
    with pytest.raises(BangerError) as raised:
        local_source(f"{tree}/{source}", follow_link=False)
    assert raised.value.kind is error


def test_link_to_what_never_ends_is_refused_when_followed(tree: Path) -> None:
    with pytest.raises(BangerError, match="not a file or directory"):
        local_source(f"{tree}/to-pipe", follow_link=True)
    with pytest.raises(BangerError, match="not a file or directory"):
        local_source("/dev/zero", follow_link=True)


def test_open_pipe_of_this_process_is_refused_not_copied_as_a_link(tree: Path) -> None:
    reading, writing = os.pipe()
    (tree / "to-fd").symlink_to(f"/dev/fd/{reading}")
    try:
        for source in (f"/dev/fd/{reading}", f"/proc/self/fd/{reading}", f"{tree}/to-fd"):
            with pytest.raises(BangerError, match="not a file or directory") as raised:
                local_source(source, follow_link=False)
            assert "vm exec" in raised.value.hint
    finally:
        os.close(reading)
        os.close(writing)


def test_open_file_of_this_process_is_read_where_it_lies(tree: Path) -> None:
    with (tree / "file").open() as file:
        number = file.fileno()
        path, what = local_source(f"/dev/fd/{number}", follow_link=False)
    assert (path, what) == (tree / "file", CopySource(str(number), is_directory=False))


def test_link_into_proc_is_a_link_like_others(tree: Path) -> None:
    (tree / "to-proc").symlink_to("/proc/cpuinfo")
    assert local_source(f"{tree}/to-proc", follow_link=False)[0] == tree / "to-proc"


def test_followed_link_is_read_where_it_leads_and_keeps_its_name(tree: Path) -> None:
    path, what = local_source(f"{tree}/to-dir", follow_link=True)
    assert (path, what) == (tree / "dir", CopySource("to-dir", is_directory=True))


@pytest.mark.parametrize(
    ("source", "target", "kind", "expected"),
    [
        ("/etc/hosts", "dir", "file", ("dir", "hosts")),
        ("/etc/hosts", "new", "file", (".", "new")),
        ("/etc/hosts", "file", "file", (".", "file")),
        ("/etc", "dir", "directory", ("dir", "etc")),
        ("/etc/", "dir", "directory", ("dir", "etc")),
        ("/etc/.", "dir", "directory", ("dir", "")),
        ("/etc", "new", "directory", (".", "new")),
        ("/etc/.", "new", "directory", (".", "new")),
        ("/etc", "new/", "directory", (".", "new")),
        ("/", "dir", "directory", ("dir", "")),
        ("/etc", "to-dir", "directory", ("dir", "etc")),
        ("/etc/hosts", "to-dir", "file", ("dir", "hosts")),
        ("/etc/hosts", "to-file", "file", (".", "file")),
        ("/etc/hosts", "dangling", "file", (".", "nowhere")),
    ],
)
def test_place_on_host(tree: Path, source: str, target: str, kind: str, expected: tuple[str, str]) -> None:
    what = CopySource(posixpath.basename(source.rstrip("/.")), kind == "directory", means_contents(source))
    directory, top = place_on_host(what, f"{tree}/{target}")
    assert (directory, top) == (tree / expected[0], expected[1])
    assert directory.is_dir()


@pytest.mark.parametrize(
    ("target", "kind", "error"),
    [
        ("none/x", "file", ErrorKind.NOT_FOUND),
        ("none/x", "directory", ErrorKind.NOT_FOUND),
        ("new/", "file", ErrorKind.NOT_FOUND),
        ("file/", "file", ErrorKind.CONFLICT),
        ("file", "directory", ErrorKind.CONFLICT),
        ("file/x", "file", ErrorKind.NOT_FOUND),
        ("pipe", "file", ErrorKind.CONFLICT),
        ("to-pipe", "file", ErrorKind.CONFLICT),
        ("pipe", "directory", ErrorKind.CONFLICT),
    ],
)
def test_place_on_host_that_cannot_be(tree: Path, target: str, kind: str, error: ErrorKind) -> None:
    """A device such as /dev/null is of the kind of the pipe: the copy would take its place."""
    with pytest.raises(BangerError) as raised:
        place_on_host(CopySource("etc", kind == "directory"), f"{tree}/{target}")
    assert raised.value.kind is error


def test_open_file_of_a_process_is_not_replaced(tree: Path) -> None:
    with (tree / "file").open("a") as file:
        for target in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            with pytest.raises(BangerError, match="open file"):
                place_on_host(CopySource("f", is_directory=False), target)
        (tree / "to-fd").symlink_to(f"/dev/fd/{file.fileno()}")
        with pytest.raises(BangerError, match="open file"):
            place_on_host(CopySource("f", is_directory=False), str(tree / "to-fd"))


def test_directory_is_sent_as_a_tar_stream(api: FakeApi, tree: Path) -> None:
    received: list[bytes] = []

    def take(session: FrameSession) -> None:
        received.append(session.read_stdin())
        session.exit(0)

    api.on("GET", "/v1/vms/web/files/stat", {"path": "/tmp", "kind": "directory"})
    api.on("POST", "/v1/vms/web/files/put", talk=take)
    sizes: list[int] = []
    copy_in(Client(api.path), "web", str(tree / "dir"), "tmp/", CopyOptions(on_bytes=sizes.append))
    with tarfile.open(fileobj=io.BytesIO(received[0])) as tar:
        assert tar.getnames() == ["dir", "dir/a"]
    assert api.asked("POST", "/v1/vms/web/files/put")[0].query == {"directory": ["/tmp"]}
    assert sizes[-1] == len(received[0])


def test_missing_source_asks_nothing_of_the_guest(api: FakeApi) -> None:
    with pytest.raises(BangerError) as raised:
        copy_in(Client(api.path), "web", "/nonexistent", "/tmp")
    assert raised.value.kind is ErrorKind.NOT_FOUND
    assert not api.calls


def test_guest_that_runs_out_of_room_tells_so(api: FakeApi, tree: Path) -> None:
    (tree / "file").write_bytes(bytes(4 << 20))

    def refuse(session: FrameSession) -> None:
        session.send(FrameType.STDERR, b"tar: write error: No space left on device\n")
        session.exit(1)

    api.on("GET", "/v1/vms/web/files/stat", {"path": "/tmp", "kind": "directory"})
    api.on("POST", "/v1/vms/web/files/put", talk=refuse)
    with pytest.raises(BangerError, match="No space left"):
        copy_in(Client(api.path), "web", str(tree / "file"), "/tmp")


def test_file_comes_out_under_its_new_name(api: FakeApi, tree: Path) -> None:
    def give(session: FrameSession) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("hosts")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        session.send(FrameType.STDOUT, buffer.getvalue())
        session.exit(0)

    api.on("GET", "/v1/vms/web/files/stat", {"path": "/etc/hosts", "kind": "file"})
    api.on("POST", "/v1/vms/web/files/get", talk=give)
    assert copy_out(Client(api.path), "web", "/etc/hosts", str(tree / "copy")) == []
    assert (tree / "copy").read_text() == "abc"


def test_missing_path_in_the_guest_is_not_found(api: FakeApi, tree: Path) -> None:
    api.on("GET", "/v1/vms/web/files/stat", {"path": "/x", "kind": "missing"})
    with pytest.raises(BangerError) as raised:
        copy_out(Client(api.path), "web", "/x", str(tree))
    assert raised.value.kind is ErrorKind.NOT_FOUND


def test_link_of_the_guest_to_what_never_ends_is_refused_when_followed(api: FakeApi, tree: Path) -> None:
    api.on("GET", "/v1/vms/web/files/stat", {"path": "/dev/stdin", "kind": "other", "is_link": True, "real_path": ""})
    with pytest.raises(BangerError, match="does not lead to a file") as raised:
        copy_out(Client(api.path), "web", "/dev/stdin", str(tree), CopyOptions(follow_link=True))
    assert raised.value.kind is ErrorKind.CONFLICT


def test_path_in_the_guest_that_is_not_utf8_is_a_usage_error_not_another_path(api: FakeApi, tree: Path) -> None:
    with pytest.raises(BangerError, match="UTF-8") as raised:
        copy_out(Client(api.path), "web", "/bad\udcff", str(tree))
    assert raised.value.kind is ErrorKind.USAGE
    assert not api.calls


def test_session_that_ends_without_a_word_is_an_unknown_outcome(api: FakeApi, tree: Path) -> None:
    api.on("GET", "/v1/vms/web/files/stat", {"path": "/tmp", "kind": "directory"})
    api.on("POST", "/v1/vms/web/files/put", talk=lambda session: session.read_stdin() and None)
    with pytest.raises(BangerError) as raised:
        copy_in(Client(api.path), "web", str(tree / "file"), "/tmp")
    assert raised.value.kind is ErrorKind.UNKNOWN_OUTCOME


@pytest.mark.parametrize("target", ["/d", "/d/sub/x"])
def test_directory_of_a_vm_is_not_copied_into_itself(api: FakeApi, target: str) -> None:
    for name in ("web", "w"):
        api.on("GET", f"/v1/vms/{name}", {"id": "1"})
        api.on("GET", f"/v1/vms/{name}/files/stat", {"path": "", "kind": "directory"})
    with pytest.raises(BangerError, match="lies in what is to be copied") as raised:
        copy_across(Client(api.path), ("web", "/d"), ("w", target), CopyOptions())
    assert raised.value.kind is ErrorKind.CONFLICT


def test_machine_of_the_sdk_copies_to_another(api: FakeApi) -> None:
    received: list[bytes] = []

    def give(session: FrameSession) -> None:
        session.send(FrameType.STDERR, b"left out: d/flush: it cannot be read\n")
        session.send(FrameType.STDOUT, archive(entry("d", tarfile.DIRTYPE), entry("d/a", data=b"1")))
        session.exit(0)

    def take(session: FrameSession) -> None:
        received.append(session.read_stdin())
        session.exit(0)

    api.on("GET", "/v1/vms/000000000001/files/stat", {"path": "/d", "kind": "directory"})
    api.on("GET", "/v1/vms/000000000002/files/stat", {"path": "/srv", "kind": "directory"})
    api.on("POST", "/v1/vms/000000000001/files/get", talk=give)
    api.on("POST", "/v1/vms/000000000002/files/put", talk=take)
    client = Client(api.path)
    one, other = (Machine(client, vm_json(id=f"00000000000{number}")) for number in (1, 2))
    assert one.copy_to("/d", other, "/srv") == ["d/flush: it cannot be read"]
    assert sorted(read_archive(received)) == ["d", "d/a"]
