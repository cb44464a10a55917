"""Directories that somebody else made, or could change, are not believed."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banger import trusted_path
from banger.client import autostart
from banger.client.connection import connect
from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout
from banger.trusted_path import check_own, check_trusted

OTHER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of ours with a short path, below one that everybody may write to."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def refused(path: Path) -> str:
    with pytest.raises(BangerError) as caught:
        check_own(path)
    assert caught.value.kind is ErrorKind.DENIED
    assert caught.value.hint
    return caught.value.cause


def test_own_directory_and_one_that_is_not_there_yet_are_believed(place: Path) -> None:
    check_own(place)
    check_own(place / "a" / "b")
    (place / "link").symlink_to(place)
    check_own(place / "link" / "c")
    (place / "relative").symlink_to("..")
    check_trusted(place / "relative")


def test_directory_that_everybody_may_write_to_and_one_below_it_are_refused(place: Path) -> None:
    (place / "open" / "mine").mkdir(parents=True)
    (place / "open").chmod(0o777)
    assert "everybody may write" in refused(place / "open")
    assert "everybody may write" in refused(place / "open" / "mine")
    (place / "open").chmod(0o1777)
    check_own(place / "open" / "mine")


@needs_root
def test_directory_that_others_of_its_group_may_write_to_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [("root", 0, 0), ("me", OTHER, OTHER), ("mallory", OTHER + 1, 100), ("service", OTHER + 2, 300)]
    people = [SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid) for name, uid, gid in accounts]
    members = {OTHER: [], 100: [], 200: ["me", "mallory"], 300: []}
    monkeypatch.setattr("pwd.getpwall", lambda: people)
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_mem=members[gid]))
    shared = place / "shared"
    shared.mkdir()
    for gid, trusted in ((0, True), (OTHER, True), (400, True), (100, False), (200, False), (300, False)):
        os.chown(shared, OTHER, gid)
        shared.chmod(0o775)
        if trusted:
            check_own(shared, OTHER)
        else:
            with pytest.raises(BangerError, match="cannot be trusted") as caught:
                check_own(shared / "data", OTHER)
            assert "its group may write" in caught.value.cause
        shared.chmod(0o1775)  # as /tmp: what is ours in it stays, but others may put theirs beside it
        check_own(shared / "data", OTHER)
        if not trusted:
            with pytest.raises(BangerError, match="cannot be trusted"):
                check_own(shared, OTHER)
        shared.chmod(0o755)
        check_own(shared, OTHER)


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """As ``setfacl`` writes it: version 2, then tag, permissions and id, in the order of the tags (acl(5))."""
    nobody = 0xFFFFFFFF
    base = [(0x01, 7, nobody), (0x04, 5, nobody), (0x10, 7, nobody), (0x20, 5, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted([*base, *entries]))


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([(0x02, 7, OTHER)], f"user {OTHER} may write"),
        ([(0x02, 5, OTHER)], ""),
        ([(0x02, 7, 0)], ""),
        ([(0x08, 7, 400)], "its group may write into it, and mallory"),
        ([(0x08, 5, 400)], ""),
    ],
)
def test_directory_that_an_access_control_list_lets_others_write_to_is_refused(
    place: Path, entries: list[tuple[int, int, int]], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = place / "shared"
    shared.mkdir()
    try:
        os.setxattr(shared, "system.posix_acl_access", _acl(*entries))
    except OSError:
        pytest.skip("this file system has no access control lists")
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_mem=["mallory"] if gid == 400 else []))
    for path in (shared, shared / "data"):
        if why:
            assert why in refused(path)
        else:
            check_own(path)


def test_directory_of_ours_in_which_everybody_may_make_files_is_refused_as_a_place_for_ours(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o1777)
    check_own(place / "open" / "mine")
    assert "everybody may write" in refused(place / "open")


@needs_root
def test_directory_that_somebody_made_a_moment_earlier_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.from_environment({"BANGER_HOME": str(place / "home")})
    make = Path.mkdir

    def overtaken(path: Path, *args: Any, **kwargs: Any) -> None:
        make(path, *args, **kwargs)
        os.chown(path, OTHER, OTHER)

    monkeypatch.setattr(Path, "mkdir", overtaken)
    with pytest.raises(BangerError, match="cannot be trusted"):
        layout.make_directories()
    make(place / "other")
    with pytest.raises(BangerError, match="cannot be trusted"):
        autostart.start_daemon(Layout.from_environment({"BANGER_HOME": str(place / "other")}))
    assert not list((place / "other").rglob("*.log"))


@pytest.mark.parametrize(
    ("uid_map", "unmapped"),
    [("0 0 4294967295", None), ("0 1000 1", 65534), ("0 1000 1\n1 100000 65535", None), ("0 1000 1\n1 9 60000", 65534)],
)
def test_uid_of_the_unmapped_stands_for_root_only_where_it_is_nobody_elses(
    uid_map: str, unmapped: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {Path("/proc/self/uid_map"): uid_map, Path("/proc/sys/kernel/overflowuid"): "65534\n"}
    monkeypatch.setattr(Path, "read_text", lambda path, **_: texts[path])
    assert trusted_path._unmapped_uid.__wrapped__() == unmapped


@needs_root
@pytest.mark.parametrize("depth", ["", "b", "b/c"])
def test_directory_that_another_user_made_is_refused_at_any_depth(place: Path, depth: str) -> None:
    (place / "a").mkdir()
    os.chown(place / "a", OTHER, OTHER)
    (place / "a" / depth).mkdir(parents=True, exist_ok=True)
    assert f"user {OTHER}" in refused(place / "a" / depth)


@needs_root
def test_link_that_another_user_planted_is_refused(place: Path) -> None:
    (place / "target").mkdir()
    (place / "link").symlink_to(place / "target")
    os.lchown(place / "link", OTHER, OTHER)
    assert "a link" in refused(place / "link" / "data")


def test_links_that_go_round_and_files_in_the_way_are_refused(place: Path) -> None:
    (place / "round").symlink_to("round")
    assert "too many links" in refused(place / "round")
    (place / "file").touch()
    assert refused(place / "file")
    assert refused(place / "file" / "below")


@needs_root
def test_daemon_is_not_started_where_another_user_planted_a_log(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.from_environment({"BANGER_HOME": str(place / "home")})
    layout.data.mkdir(parents=True)
    victim = place / "victim"
    victim.write_text("precious")
    layout.daemon_log.symlink_to(victim)
    os.chown(layout.data, OTHER, OTHER)
    with pytest.raises(BangerError) as caught:
        autostart.start_daemon(layout)
    assert caught.value.kind is ErrorKind.DENIED
    os.chown(layout.data, 0, 0)
    with pytest.raises(BangerError):
        autostart.start_daemon(layout)
    assert victim.read_text() == "precious"


@needs_root
def test_socket_on_which_another_user_listens_is_told_nothing(place: Path) -> None:
    path = place / "s"
    ready, done = threading.Event(), threading.Event()

    def listen() -> None:
        pid = os.fork()
        if pid == 0:
            os.setgid(OTHER)
            os.setuid(OTHER)
            listener.listen(1)  # whose credentials a peer sees, unix(7)
            os.write(write_end, b"x")
            os.read(stop_read, 1)
            os._exit(0)
        os.read(read_end, 1)
        ready.set()
        done.wait(30)
        os.write(stop_write, b"x")
        os.waitpid(pid, 0)

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    read_end, write_end = os.pipe()
    stop_read, stop_write = os.pipe()
    thread = threading.Thread(target=listen)
    thread.start()
    try:
        assert ready.wait(30)
        with pytest.raises(BangerError) as caught:
            connect(path)
        assert caught.value.kind is ErrorKind.DENIED
        assert str(OTHER) in caught.value.message
    finally:
        done.set()
        thread.join()
        listener.close()
        for descriptor in (read_end, write_end, stop_read, stop_write):
            os.close(descriptor)
