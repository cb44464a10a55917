"""Signals to `run` and `exec`: the command's, ours, or nobody's; and the terminal afterwards."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banger.commands import relay
from banger.core.frames import FrameType
from tests.support.cli import banger_process
from tests.support.cli_terminal import Terminal
from tests.support.fake_api import FakeApi, FrameSession
from tests.support.waiting import eventually

pytest_plugins = ("tests.support.cli_fixtures",)
RUN = "/v1/vms/run"
EXEC = "/v1/vms/web/exec"


class Echo:
    """A command that says what signals it gets, and ends with TERM or a hang-up."""

    def __init__(self) -> None:
        self.left = threading.Event()

    def __call__(self, session: FrameSession) -> None:
        session.started()
        session.send(FrameType.STDOUT, b"up\n")
        with suppress(OSError):  # who sends a signal and leaves does not wait for an answer
            while (name := session.wait_for(FrameType.SIGNAL)) is not None:
                session.send(FrameType.STDOUT, name + b"\n")
                if name == b"TERM":
                    session.exit(143, "TERM")
        self.left.set()


@pytest.mark.parametrize("name", ["HUP", "QUIT", "USR1", "USR2", "ALRM", "ABRT", "INT", "TERM"])
def test_signal_is_passed_on(api: FakeApi, name: str) -> None:
    api.on("POST", EXEC, talk=Echo())
    process = banger_process("vm", "exec", "web", "server")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.Signals[f"SIG{name}"])
    assert process.stdout.readline() == name.encode() + b"\n"
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_signal_that_asks_for_no_end_may_come_as_often_as_it_likes(api: FakeApi, number: signal.Signals) -> None:
    api.on("POST", EXEC, talk=Echo())
    process = banger_process("vm", "exec", "web", "server")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    for _ in range(3):
        process.send_signal(number)
        assert process.stdout.readline() == number.name.removeprefix("SIG").encode() + b"\n"
    process.terminate()
    assert process.wait(20) == 143
    process.communicate()


def test_signal_that_comes_before_the_command_waits_for_it(api: FakeApi) -> None:
    booting, go_on = threading.Event(), threading.Event()
    echo = Echo()

    def slow(session: FrameSession) -> None:
        booting.set()
        assert go_on.wait(20)
        echo(session)

    api.on("POST", RUN, talk=slow)
    process = banger_process("run", "alpine", "server")
    assert booting.wait(20)
    eventually(lambda: caught(process.pid) & 1 << signal.SIGUSR1 - 1)
    process.send_signal(signal.SIGUSR1)
    go_on.set()
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == [b"up\n", b"USR1\n"]
    process.terminate()
    assert process.wait(20) == 143
    process.communicate()


def caught(pid: int) -> int:
    """The signals that a process catches, as bits."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))


def test_hang_up_that_is_ignored_stays_so_and_what_background_jobs_ignore_does_not(api: FakeApi) -> None:
    """nohup(1) means it; INT and QUIT are ignored in whatever a shell without job control puts behind ``&``."""
    api.on("POST", EXEC, talk=Echo())
    script = f"trap '' HUP INT QUIT; exec {sys.executable} -m banger vm exec web server"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGHUP)
        for name in (b"INT\n", b"QUIT\n", b"TERM\n"):
            process.send_signal(signal.Signals[f"SIG{name.decode().strip()}"])
            assert process.stdout.readline() == name
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_second_wish_to_end_leaves_and_restores_the_terminal(
    api: FakeApi, terminal: type[Terminal], number: signal.Signals
) -> None:
    def stubborn(session: FrameSession) -> None:
        session.started()
        session.wait_for(FrameType.RESIZE)
        session.send(FrameType.STDOUT, b"ready")
        while (name := session.wait_for(FrameType.SIGNAL)) is not None:
            session.send(FrameType.STDOUT, b"got " + name)

    api.on("POST", EXEC, talk=stubborn)
    tty = terminal("vm", "exec", "web", "sh")
    tty.read_until(b"ready")
    tty.process.send_signal(number)
    tty.read_until(b"got " + number.name.removeprefix("SIG").encode())
    another_wish()
    tty.process.send_signal(number)
    assert tty.process.wait(15) == 128 + number
    assert termios.tcgetattr(tty.slave) == tty.before
    tty.close()


class Stubborn:
    """A command that takes every signal and goes on until its caller has left."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.heard: list[bytes] = []

    def __call__(self, session: FrameSession) -> None:
        session.started()
        session.send(FrameType.STDOUT, b"up\n")
        while (name := session.wait_for(FrameType.SIGNAL)) is not None:
            self.heard.append(name)
        self.left.set()


def test_command_that_does_not_heed_term_is_killed_after_a_while(api: FakeApi) -> None:
    """One signal must do: ``timeout 60 banger exec …`` sends no second."""
    stubborn = Stubborn()
    api.on("POST", EXEC, talk=stubborn)
    process = banger_process("vm", "exec", "--kill-after", "300ms", "web", "server")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.wait(15) == 143
    assert b"still ran 0.3 s after TERM" in process.communicate()[1]
    assert stubborn.left.wait(10)
    assert stubborn.heard == [b"TERM"]


def test_command_may_take_its_time_to_heed_term_if_it_is_let(api: FakeApi) -> None:
    stubborn = Stubborn()
    api.on("POST", EXEC, talk=stubborn)
    process = banger_process("vm", "exec", "--kill-after", "0", "web", "server")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    eventually(lambda: stubborn.heard == [b"TERM"])
    process.send_signal(signal.SIGUSR1)
    eventually(lambda: stubborn.heard == [b"TERM", b"USR1"])
    assert process.poll() is None
    another_wish()
    process.terminate()  # nobody says that twice for nothing, however late
    assert process.wait(15) == 143
    process.communicate()


def another_wish() -> None:
    """What is sent from here on is not the same wish as what was sent before."""
    before = time.monotonic()
    eventually(lambda: time.monotonic() - before > relay._SAME_WISH_S)


def test_same_signal_twice_at_once_is_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """timeout(1) sends it to its child, and then to the whole group, which the child is in."""
    passed_on: list[bytes] = []
    now = [100.0]
    monkeypatch.setattr(relay.time, "monotonic", lambda: now[0])
    channel: Any = SimpleNamespace(put=lambda _, payload=b"": passed_on.append(payload) if payload else None)
    session = relay.Relay(channel, lambda _: None, lambda: None, relay.Manner(tty=False))
    session.started = {}
    assert not session._on_signal(signal.SIGTERM)
    now[0] += 0.01
    assert not session._on_signal(signal.SIGTERM)
    assert not session._on_signal(signal.SIGINT)
    now[0] += 0.5
    assert session._on_signal(signal.SIGTERM), "that is another one"
    assert passed_on == [b"TERM", b"INT"]


def test_killed_client_has_hung_up(api: FakeApi) -> None:
    """``timeout -k``, and whatever else leaves a process no time."""
    stubborn = Stubborn()
    api.on("POST", EXEC, talk=stubborn)
    process = banger_process("vm", "exec", "web", "server")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.kill()
    assert stubborn.left.wait(10)
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGVTALRM, signal.SIGXCPU, signal.SIGRTMIN + 3, signal.SIGIO])
def test_deadly_signal_that_cannot_be_passed_on_restores_the_terminal(
    api: FakeApi, terminal: type[Terminal], number: int
) -> None:
    api.on("POST", EXEC, talk=Echo())
    tty = terminal("vm", "exec", "web", "sh")
    tty.read_until(b"up")
    eventually(lambda: not termios.tcgetattr(tty.slave)[3] & termios.ECHO)
    tty.process.send_signal(number)
    assert tty.process.wait(15) == 128 + number
    assert termios.tcgetattr(tty.slave) == tty.before
    tty.close()


def test_terminal_that_goes_away_ends_the_session(api: FakeApi, terminal: type[Terminal]) -> None:
    echo = Echo()
    api.on("POST", EXEC, talk=echo)
    tty = terminal("vm", "exec", "web", "sh")
    tty.read_until(b"up")
    eventually(lambda: not termios.tcgetattr(tty.slave)[3] & termios.ECHO)
    os.close(tty.slave)
    os.close(tty.master)
    tty.process.send_signal(signal.SIGHUP)
    assert tty.process.wait(15) == 129
    assert echo.left.wait(10)


def test_terminal_that_goes_away_ends_a_session_that_has_none_in_the_guest(api: FakeApi) -> None:
    """Its input is read through a terminal, its output is not: the guest's command has no terminal to lose."""
    stubborn = Stubborn()
    api.on("POST", EXEC, talk=stubborn)
    master, slave = pty.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "banger", "vm", "exec", "web", "server"]
    with subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE) as process:
        os.close(slave)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            os.close(master)
            assert stubborn.left.wait(10)
        finally:
            process.kill()
    assert stubborn.heard == []


def test_stop_gives_the_terminal_back_until_it_goes_on(api: FakeApi, terminal: type[Terminal]) -> None:
    resized = threading.Semaphore(0)

    def shell(session: FrameSession) -> None:
        session.started()
        while session.wait_for(FrameType.RESIZE) is not None:
            session.send(FrameType.STDOUT, b"ready")
            resized.release()

    api.on("POST", EXEC, talk=shell)
    tty = terminal("vm", "exec", "web", "sh")
    tty.read_until(b"ready")
    assert resized.acquire(timeout=10)
    eventually(lambda: not termios.tcgetattr(tty.slave)[3] & termios.ECHO)
    tty.process.send_signal(signal.SIGTSTP)
    eventually(
        lambda: Path(f"/proc/{tty.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    )
    assert termios.tcgetattr(tty.slave) == tty.before
    tty.process.send_signal(signal.SIGCONT)
    assert resized.acquire(timeout=10)
    eventually(lambda: not termios.tcgetattr(tty.slave)[3] & termios.ECHO)
    tty.process.kill()
    tty.close()
