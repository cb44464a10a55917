"""What hands type that know other tools: signals, loops that read, entrypoints and arguments."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.support import images
from tests.support.daemon import BangerHome
from tests.support.images import TestImage
from tests.support.waiting import eventually

pytestmark = pytest.mark.boot

TRAPS = """
for name in HUP QUIT USR1 USR2 ALRM TERM INT; do trap "echo $name" $name; done
trap 'exit 7' TERM
echo ready
while :; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def entered(home: BangerHome, pushed: Callable[[TestImage], str]) -> str:
    """Name of an image with an entrypoint."""
    home.run("image", "pull", pushed(images.entrypoint()), "--name", "entered").ok()
    return "entered"


def test_signals_reach_the_command_one_by_one(home: BangerHome, vm: str) -> None:
    with home.cli.spawn("exec", vm, "sh", "-c", TRAPS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for name in ("HUP", "USR1", "USR1", "USR2", "HUP", "ALRM", "QUIT", "INT"):
            process.send_signal(signal.Signals[f"SIG{name}"])
            assert process.stdout.readline() == name.encode() + b"\n"
        process.terminate()
        assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 7


def test_terminal_that_goes_away_ends_the_command(home: BangerHome, vm: str) -> None:
    with home.cli.terminal("exec", "-it", vm, "sh", "-c", "echo ready; exec sleep 4321") as screen:
        screen.expect("ready")
        process = screen.process
    assert process.wait(60) != 0
    assert home.guest(vm, "ps -eo args= | grep -c '[s]leep 4321'").text.strip() == "0"


def test_loop_that_reads_its_own_lines_runs_for_each(home: BangerHome, vm: str) -> None:
    command = " ".join(home.cli.argv("exec", "-n", vm, "echo"))
    loop = f'while read -r word; do {command} "$word"; done'
    done = subprocess.run(
        ["sh", "-c", loop],
        input=b"one\ntwo\n",
        env=dict(home.cli.env),
        cwd=home.cli.cwd,
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"one\ntwo\n"
    assert home.run("exec", "--no-stdin", vm, "cat", stdin=b"not for it").ok().text == ""
    assert home.run("exec", "-i", vm, "cat", stdin=b"for it").ok().text == "for it"


def test_command_on_a_terminal_gets_the_end_of_input_that_is_none(home: BangerHome, vm: str) -> None:
    assert home.run("exec", "-it", vm, "cat", stdin=b"line\nhalf", timeout_s=60).ok().text.endswith("half")
    assert home.run("exec", "-nt", vm, "cat", timeout_s=60).code == 0


@pytest.mark.registry
def test_run_puts_entrypoint_and_arguments_together(home: BangerHome, entered: str) -> None:
    result = home.run(
        "run", "--hostname", "Db.lan", "--env", "GREETING=hi", entered, "--", "sh", "-c", "hostname; echo $GREETING"
    )
    assert (result.code, result.text) == (0, "Db.lan\nhi\n"), str(result)
    assert "entry: sh -c hostname" in result.errors


@pytest.mark.registry
def test_detached_command_runs_with_every_boot_and_exec_needs_no_entrypoint(home: BangerHome, entered: str) -> None:
    script = "echo up; trap 'echo interrupted' INT; while :; do sleep 0.1; done"
    vm = home.run("run", "-d", "--name", "served", entered, "--", "sh", "-c", script).ok().text.strip()
    try:
        eventually(lambda: _said(home, vm, "\nup\n"), 60, "the command to say that it is up")
        assert _said(home, vm, "entry: sh -c")
        plain = home.run("exec", vm, "echo", "plain")
        assert (plain.text, plain.errors) == ("plain\n", "")
        shell = b"for p in /proc/[0-9]*; do read -r l <$p/cmdline; case $l in *interrupted*) kill -INT ${p#/proc/};; esac; done"
        assert home.run("exec", vm, stdin=shell).code == 0
        eventually(lambda: _said(home, vm, "\ninterrupted\n"), 60, "a signal that a background job would not get")
        home.run("restart", vm).ok()
        eventually(lambda: _said(home, vm, "\nup\n", times=2), 60, "the command to be started again")
    finally:
        home.run("delete", "-f", vm).ok()


def _said(home: BangerHome, vm: str, text: str, *, times: int = 1) -> bool:
    return home.run("logs", vm).ok().text.replace("\r", "").count(text) >= times
