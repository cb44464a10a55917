"""Directories that somebody else made, or could change, are not believed."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

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
        shared.chmod(0o1775)
        check_own(shared, OTHER)
        shared.chmod(0o755)
        check_own(shared, OTHER)


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
