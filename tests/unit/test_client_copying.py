"""What ends up where, by the rules of `docker cp`, and what the guest's complaints become."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from banger.client import Client
from banger.client.copying import copy_in, copy_out, place_in_guest, place_on_host
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType
from tests.support.fake_api import FakeApi, FrameSession

pytest_plugins = ("tests.support.cli_fixtures",)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a").write_text("1")
    (tmp_path / "file").write_text("2")
    return tmp_path


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
    ],
)
def test_place_in_guest(tree: Path, source: str, target: str, kind: str, expected: tuple[str, str]) -> None:
    directory, top = expected
    found = place_in_guest(tree / source, str(tree) + "/" + source, target, kind)
    assert found == (directory, tree.name if top == "PARENT" else top)


@pytest.mark.parametrize(
    ("source", "target", "kind", "error"),
    [
        ("file", "/tmp/new/", "missing", ErrorKind.NOT_FOUND),
        ("dir", "/tmp/old", "file", ErrorKind.CONFLICT),
        ("file", "/dev/null", "other", ErrorKind.CONFLICT),
    ],
)
def test_place_in_guest_that_cannot_be(tree: Path, source: str, target: str, kind: str, error: ErrorKind) -> None:
    with pytest.raises(BangerError) as raised:
        place_in_guest(tree / source, source, target, kind)
    assert raised.value.kind is error


@pytest.mark.parametrize(
    ("source", "target", "kind", "expected"),
    [
        ("/etc/hosts", "dir", "file", ("dir", "hosts")),
        ("/etc/hosts", "new", "file", (".", "new")),
        ("/etc/hosts", "file", "file", (".", "file")),
        ("/etc", "dir", "directory", ("dir", "etc")),
        ("/etc/", "dir", "directory", ("dir", "etc")),
        ("/etc/.", "dir", "directory", ("dir", "")),
        ("/etc", "new", "directory", ("new", "")),
        ("/", "dir", "directory", ("dir", "")),
    ],
)
def test_place_on_host(tree: Path, source: str, target: str, kind: str, expected: tuple[str, str]) -> None:
    directory, top = place_on_host(tree / target, source, str(tree / target), kind)
    assert (directory, top) == (tree / expected[0], expected[1])
    assert directory.is_dir()


@pytest.mark.parametrize(
    ("target", "kind", "error"),
    [
        ("none/x", "file", ErrorKind.NOT_FOUND),
        ("new/", "file", ErrorKind.NOT_FOUND),
        ("file", "directory", ErrorKind.CONFLICT),
        ("none/x", "directory", ErrorKind.DENIED),
    ],
)
def test_place_on_host_that_cannot_be(tree: Path, target: str, kind: str, error: ErrorKind) -> None:
    with pytest.raises(BangerError) as raised:
        place_on_host(tree / target, "/etc", f"{tree}/{target}", kind)
    assert raised.value.kind is error


def test_directory_is_sent_as_a_tar_stream(api: FakeApi, tree: Path) -> None:
    received: list[bytes] = []

    def take(session: FrameSession) -> None:
        received.append(session.read_stdin())
        session.exit(0)

    api.on("GET", "/v1/vms/web/files/stat", {"path": "/tmp", "kind": "directory"})
    api.on("POST", "/v1/vms/web/files/put", talk=take)
    sizes: list[int] = []
    copy_in(Client(api.path), "web", str(tree / "dir"), "tmp/", sizes.append)
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


def test_session_that_ends_without_a_word_is_an_unknown_outcome(api: FakeApi, tree: Path) -> None:
    api.on("GET", "/v1/vms/web/files/stat", {"path": "/tmp", "kind": "directory"})
    api.on("POST", "/v1/vms/web/files/put", talk=lambda session: session.read_stdin() and None)
    with pytest.raises(BangerError) as raised:
        copy_in(Client(api.path), "web", str(tree / "file"), "/tmp")
    assert raised.value.kind is ErrorKind.UNKNOWN_OUTCOME
