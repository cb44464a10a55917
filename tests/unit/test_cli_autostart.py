"""The daemon is started when none answers: once, whoever asks at the same time, and its last words are passed on."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.client import autostart
from banger.client.connection import connect
from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout
from tests.support.cli import Cli
from tests.support.waiting import eventually

pytest_plugins = ("tests.support.cli_fixtures",)

#: Holds the lock as the real daemon does, notes its pid, listens, and stays.
FAKE_DAEMON = """
import fcntl, os, pathlib, signal, socket, sys
home = pathlib.Path(os.environ["BANGER_HOME"])
lock = open(home / "data" / "daemon.lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(4)
(home / "run").mkdir(exist_ok=True)
(home / f"pid-{os.getpid()}").touch()
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(home / "run" / "banger.sock"))
listener.listen()
signal.pause()
"""


@pytest.fixture
def layout(home: Path) -> Layout:
    return Layout.from_environment()


@pytest.fixture
def fake_daemon(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(autostart, "daemon_command", lambda: [sys.executable, "-c", FAKE_DAEMON])
    yield
    for pid in pids(home):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def pids(home: Path) -> list[int]:
    return [int(path.name.removeprefix("pid-")) for path in home.glob("pid-*")]


def script(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(autostart, "daemon_command", lambda: [sys.executable, "-c", code])


@pytest.mark.usefixtures("fake_daemon")
def test_daemon_is_detached_and_answers(layout: Layout, home: Path) -> None:
    autostart.start_daemon(layout)
    connect(layout.socket).close()
    (pid,) = pids(home)
    assert os.getsid(pid) == pid, "a session of its own: our terminal's signals are not for it"
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert Path(f"/proc/{pid}/fd/1").readlink() == layout.daemon_log
    assert layout.daemon_log.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("fake_daemon")
def test_two_at_once_share_one_daemon(layout: Layout, home: Path) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            autostart.start_daemon(layout, timeout_s=20)
        except BangerError as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(pids(home)) == 1


@pytest.mark.usefixtures("fake_daemon")
def test_daemon_that_is_just_stopping_is_waited_for(
    layout: Layout, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is still held by a daemon that answers no more: another try gets it."""
    spawned: list[object] = []
    spawn = autostart._spawn
    monkeypatch.setattr(autostart, "_spawn", lambda found: spawned.append(found) or spawn(found))
    monkeypatch.setattr(autostart, "_RETRY_S", 0.05)
    layout.lock_file.parent.mkdir(parents=True)
    with layout.lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=autostart.start_daemon, args=(layout, 20))
        thread.start()
        eventually(lambda: len(spawned) > 1)
    thread.join()
    assert len(pids(home)) == 1


def test_failed_start_tells_the_daemons_own_error(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    report = "12:00 INFO hello\nerror: the store is of a newer banger\n  cause: schema 9\n  hint: upgrade\n"
    script(monkeypatch, f"import sys; print({report!r}); sys.exit(7)")
    with pytest.raises(BangerError) as raised:
        autostart.start_daemon(layout)
    error = raised.value
    assert (error.kind, error.message) == (ErrorKind.UNAVAILABLE, "the banger daemon did not start")
    assert error.cause == "the store is of a newer banger\nschema 9\nhint: upgrade"


def test_failed_start_shows_the_last_lines_of_this_start_only(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.daemon_log.parent.mkdir(parents=True)
    layout.daemon_log.write_text("error: of yesterday\n")
    script(monkeypatch, "raise SystemExit('a\\nb')")
    with pytest.raises(BangerError) as raised:
        autostart.start_daemon(layout)
    assert raised.value.cause == "a\nb"


def test_silent_failure_names_the_status(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "raise SystemExit(70)")
    with pytest.raises(BangerError, match="status 70"):
        autostart.start_daemon(layout)


def test_daemon_that_never_answers_is_a_timeout(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "print('thinking', flush=True); import sys; sys.stdin.read(); raise SystemExit(4)")
    monkeypatch.setattr(autostart, "_RETRY_S", 0.05)
    with pytest.raises(BangerError) as raised:
        autostart.start_daemon(layout, timeout_s=0.3)
    assert raised.value.kind is ErrorKind.TIMEOUT


def test_daemon_that_has_the_lock_and_does_not_answer_is_named(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "raise SystemExit(4)")
    monkeypatch.setattr(autostart, "_RETRY_S", 0.05)
    layout.lock_file.parent.mkdir(parents=True)
    layout.lock_file.write_text("4711\n")
    monkeypatch.setattr(autostart, "_LOST_RACE", 4)
    with pytest.raises(BangerError) as raised:
        autostart.start_daemon(layout, timeout_s=1.0)
    assert str(layout.socket) in raised.value.message
    assert raised.value.hint.startswith("kill 4711;")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_state_directory_of_somebody_else_is_denied(layout: Layout, home: Path) -> None:
    home.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(BangerError) as raised:
            autostart.start_daemon(layout)
    finally:
        os.seteuid(0)
    assert raised.value.kind is ErrorKind.DENIED
    assert "daemon.log" in raised.value.message


def test_command_finds_this_package_from_anywhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(autostart.__file__).parents[2]
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])
    env = autostart.daemon_environment({"BANGER_HOME": "relative", "HOME": "/root", "XDG_DATA_HOME": "/d"})
    assert env == {"BANGER_HOME": str(Path("relative").absolute()), "XDG_DATA_HOME": "/d", "PYTHONPATH": str(root)}
    monkeypatch.setattr(sys, "path", ["/usr/bin", *sys.path])
    assert autostart.daemon_environment({}) == {}


def test_command_line_reports_the_failed_start(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "print('error: no disk'); raise SystemExit(1)")
    ended = cli("vm", "list")
    assert ended.code == 7
    assert ended.err == "error: the banger daemon did not start\n  cause: no disk\n  hint: banger daemon run\n"


def test_daemon_inherits_no_secret_of_its_caller() -> None:
    env = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_PROFILE": "work",
        "BANGER_VM_CPUS": "2",
        "LC_ALL": "C",
        "https_proxy": "p",
        "X": "y",
    }
    kept = autostart._clean_environment(env)
    assert kept == {
        "PATH": "/bin",
        "AWS_PROFILE": "work",
        "BANGER_VM_CPUS": "2",
        "LC_ALL": "C",
        "https_proxy": "p",
    }
