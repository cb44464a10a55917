"""Commands in a running VM: exit codes, streams kept apart and whole, terminals, environment, users."""

from __future__ import annotations

import hashlib
import signal

import pytest

from tests.support.daemon import BangerHome
from tests.support.waiting import eventually

pytestmark = pytest.mark.boot

TEN_MB = hashlib.shake_256(b"ten megabytes").digest(10_000_000)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "exit 130"], 130),
        (["sh", "-c", "kill -INT $$"], 130),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["/etc/passwd"], 126),
        (["no-such-command"], 127),
    ],
)
def test_exec_ends_with_the_exit_code_of_the_guest_command(
    home: BangerHome, vm: str, argv: list[str], code: int
) -> None:
    assert home.run("vm", "exec", vm, "--", *argv).code == code


def test_exec_keeps_standard_output_and_error_apart(home: BangerHome, vm: str) -> None:
    result = home.guest(vm, "echo out; echo err >&2; echo more")
    assert (result.code, result.output, result.errors) == (0, b"out\nmore\n", "err\n")


def test_exec_passes_ten_megabytes_through_unchanged(home: BangerHome, vm: str) -> None:
    result = home.run("vm", "exec", vm, "--", "cat", stdin=TEN_MB).ok()
    assert len(result.output) == len(TEN_MB)
    assert result.output == TEN_MB


def test_exec_of_a_command_that_ignores_its_input_ends_with_it(home: BangerHome, vm: str) -> None:
    assert home.run("vm", "exec", vm, "--", "true", stdin=TEN_MB).code == 0


def test_exec_keeps_arguments_as_they_are(home: BangerHome, vm: str) -> None:
    odd = ["a b", "", "'", '"', "$HOME", "*", "\\", "ü\n", "--help", "-", "--"]
    result = home.run("vm", "exec", vm, "--", "printf", "%s\\0", *odd).ok()
    assert result.output.decode().split("\0")[:-1] == odd


def test_exec_gives_environment_user_and_directory(home: BangerHome, vm: str) -> None:
    script = 'echo "$GREETING $LAYERED"; id -u; pwd'
    options = ["--env", "GREETING=good day", "--user", "nobody", "--workdir", "/tmp"]
    result = home.run("vm", "exec", *options, vm, "--", "sh", "-c", script).ok()
    assert result.text.splitlines() == ["good day yes", "65534", "/tmp"]


def test_exec_with_a_timeout_gives_up_and_says_so(home: BangerHome, vm: str) -> None:
    result = home.run("vm", "exec", "--timeout", "2s", vm, "--", "sleep", "300")
    assert result.code == 124
    assert home.guest(vm, "ps -eo args= | grep -c '[s]leep 300'").text.strip() == "0"


def test_exec_of_a_command_that_ignores_every_wish_to_end_is_over_with_its_client(home: BangerHome, vm: str) -> None:
    script = "trap '' TERM HUP INT; echo up; sleep 4321 & while :; do sleep 4321; done"
    command = ("vm", "exec", "--kill-after", "1s", vm, "--", "sh", "-c", script)
    with home.cli.spawn(*command) as asked, home.cli.spawn(*command) as killed:
        for client, number in ((asked, signal.SIGTERM), (killed, signal.SIGKILL)):
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            client.send_signal(number)
        assert (asked.wait(60), killed.wait(60)) == (143, -signal.SIGKILL)
    eventually(lambda: home.guest(vm, "ps -eo args= | grep -c '[s]leep 4321'").text.strip() == "0", timeout_s=60)


def test_exec_on_a_terminal_has_its_size_and_one_stream(home: BangerHome, vm: str) -> None:
    with home.cli.terminal(
        "vm", "exec", vm, "--", "sh", "-c", "stty size; tty; exit 3", rows=33, columns=101
    ) as screen:
        assert screen.wait() == 3
        assert "33 101" in screen.shown
        assert "/dev/pts/" in screen.shown


def test_ctrl_c_on_a_terminal_reaches_the_guest_command(home: BangerHome, vm: str) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with home.cli.terminal("vm", "exec", vm, "--", "sh", "-c", script) as screen:
        screen.expect("ready")
        screen.type("\x03")
        assert screen.wait() == 9
        assert "caught" in screen.shown


def test_two_commands_at_once_in_one_vm_do_not_wait_for_each_other(home: BangerHome, vm: str) -> None:
    with home.cli.spawn("vm", "exec", vm, "--", "cat") as patient:
        assert home.guest(vm, "echo quick").text == "quick\n"
        output, _ = patient.communicate(b"slow\n", timeout=60)
    assert (patient.returncode, output) == (0, b"slow\n")


def test_ssh_reaches_the_vm_with_the_users_own_client(home: BangerHome, vm: str) -> None:
    assert home.run("vm", "ssh", vm, "--", "echo $((6 * 7)); exit 5").code == 5
    assert home.run("vm", "ssh", vm, "--", "echo $((6 * 7))").ok().text == "42\n"
