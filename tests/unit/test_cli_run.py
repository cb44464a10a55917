"""`run` and `exec` as real processes: streams, exit codes, signals and the terminal behave as if it ran here."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from banger.core.frames import FrameType
from tests.support.cli import banger, banger_process
from tests.support.cli_terminal import Terminal
from tests.support.fake_api import FakeApi, FrameSession, event, vm_json
from tests.support.waiting import eventually

pytest_plugins = ("tests.support.cli_fixtures",)
RUN = "/v1/vms/run"
EXEC = "/v1/vms/web/exec"


def boot(session: FrameSession) -> None:
    session.send_json(FrameType.EVENT, event("step_started", "boot"))
    session.send_json(FrameType.EVENT, event("step_finished", "boot", elapsed_s=2.1))
    session.started()


def config_of(api: FakeApi) -> dict[str, Any]:
    config: dict[str, Any] = api.calls[0].config
    return config


def test_run_passes_every_byte_and_the_exit_code(api: FakeApi) -> None:
    data = bytes(range(256)) * 4000

    def cat(session: FrameSession) -> None:
        boot(session)
        session.send(FrameType.STDOUT, session.read_stdin())
        session.send(FrameType.STDERR, b"\x00\xff complaint")
        session.exit(42)

    api.on("POST", RUN, talk=cat)
    code, out, err = banger("run", "--cpus", "2", "alpine", "cat", "-n", "--json", stdin=data)
    assert (code, out, err) == (42, data, b"  boot  2.10 s\n\x00\xff complaint")
    config = config_of(api)
    assert config["exec"]["argv"] == ["cat", "-n", "--json"]
    assert (config["exec"]["tty"], config["detach"]) == (None, False)
    assert (config["spec"]["image"], config["spec"]["cpus"], config["spec"]["ephemeral"]) == ("alpine", 2, True)


@pytest.mark.parametrize(
    ("arguments", "image", "argv", "ephemeral"),
    [
        (["alpine", "--", "ls", "-l"], "alpine", ["ls", "-l"], True),
        (["alpine", "--name", "x", "--", "ls"], "alpine", ["ls"], False),
        (["--keep", "alpine", "ls", "--", "-l"], "alpine", ["ls", "--", "-l"], False),
        (["--rm", "--name", "x", "alpine"], "alpine", [], True),
        (["-qeA=b", "alpine", "-e", "C=d", "env"], "alpine", ["env"], True),
        (["--", "true"], "debian", ["true"], True),
        (["alpine", "-c", "id"], "alpine", ["-c", "id"], True),
        (["alpine", "--version"], "alpine", ["--version"], True),
        (["alpine", "--keep", "-c", "--rm"], "alpine", ["-c", "--rm"], False),
        (["--entrypoint", "sh", "alpine", "-e", "-c", "id"], "alpine", ["-e", "-c", "id"], True),
        (["--entrypoint=sh", "alpine", "--keep", "--", "-c"], "alpine", ["-c"], False),
    ],
)
def test_run_tells_its_own_words_from_the_commands(
    api: FakeApi, arguments: list[str], image: str, argv: list[str], ephemeral: bool
) -> None:
    api.on("POST", RUN, talk=lambda session: session.exit(0))
    assert banger("run", *arguments)[0] == 0
    config = config_of(api)
    assert (config["spec"]["image"], config["exec"]["argv"], config["spec"]["ephemeral"]) == (image, argv, ephemeral)


def test_run_detached_prints_the_name_and_sends_no_input(api: FakeApi) -> None:
    def detach(session: FrameSession) -> None:
        boot(session)
        session.exit(0)

    api.on("POST", RUN, talk=detach)
    api.on("GET", "/v1/vms/0123456789ab", vm_json("brave-otter"))
    code, out, _ = banger("run", "-d", "alpine", stdin=b"not for the guest")
    assert (code, out) == (0, b"brave-otter\n")
    config = config_of(api)
    assert (config["detach"], config["spec"]["ephemeral"]) == (True, False)
    assert api.calls[0].stdin == b""


@pytest.mark.parametrize(("kind", "code"), [("not_found", 125), ("timeout", 125), ("usage", 2), ("cancelled", 130)])
def test_failure_before_the_command_runs_is_125(api: FakeApi, kind: str, code: int) -> None:
    api.on("POST", RUN, talk=lambda session: session.fail(kind=kind, message='image "x" not found', hint="h"))
    ended = banger("run", "x", "true")
    assert ended == (code, b"", b'error: image "x" not found\n  hint: h\n')


@pytest.mark.parametrize(("kind", "advised"), [("unavailable", True), ("timeout", True), ("not_found", False)])
def test_failure_of_the_host_without_better_advice_names_the_check_up(api: FakeApi, kind: str, advised: bool) -> None:
    api.on("POST", RUN, talk=lambda session: session.fail(kind=kind, message="it does not run"))
    assert (b"hint: banger doctor --boot" in banger("run", "x", "true")[2]) is advised


def test_failure_after_the_command_began_keeps_its_kind(api: FakeApi) -> None:
    def fail(session: FrameSession) -> None:
        session.started()
        session.fail(kind="timeout", message="the command did not end within 1 s")

    api.on("POST", EXEC, talk=fail)
    assert banger("vm", "exec", "web", "--timeout", "1s", "--", "sleep", "9")[0] == 124


@pytest.mark.parametrize(
    ("typed", "sent"), [((), ""), (("--checkpoint", "off"), ""), (("--checkpoint", "auto"), "auto")]
)
def test_exec_asks_for_a_checkpoint_if_that_is_typed(api: FakeApi, typed: tuple[str, ...], sent: str) -> None:
    api.on("POST", EXEC, talk=lambda session: (session.started(), session.exit(0)))
    assert banger("vm", "exec", *typed, "web", "true")[0] == 0
    assert config_of(api).get("checkpoint", "") == sent


def test_daemon_that_vanishes_leaves_the_outcome_unknown(api: FakeApi) -> None:
    api.on("POST", EXEC, talk=lambda session: session.started(), cut=True)
    assert banger("vm", "exec", "web", "true")[0] == 10


def test_closed_streams_are_harmless_unless_something_is_written(api: FakeApi) -> None:
    def talk(session: FrameSession) -> None:
        session.started()
        got = len(session.read_stdin())
        session.send(FrameType.STDERR if got else FrameType.STDOUT, b"got %d" % got)
        session.exit(3)

    api.on("POST", EXEC, talk=talk)
    command = f"exec {sys.executable} -m banger vm exec web wc"
    done = subprocess.run(["sh", "-c", f"{command} <&-"], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (3, b"got 0")
    done = subprocess.run(["sh", "-c", f"{command} >&- 2>&-"], capture_output=True, timeout=30, check=False, input=b"x")
    assert done.returncode == 3


def test_reader_that_leaves_ends_it_quietly(api: FakeApi) -> None:
    def flood(session: FrameSession) -> None:
        session.started()
        while True:
            session.send(FrameType.STDOUT, b"y\n" * 20_000)

    api.on("POST", EXEC, talk=flood)
    process = banger_process("vm", "exec", "web", "yes")
    assert process.stdout is not None
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.communicate()
    assert api.hung_up.wait(10)


def test_slow_reader_holds_the_guest_back(api: FakeApi) -> None:
    """Output that nobody takes must wait in the guest, not pile up here."""
    sent = threading.Semaphore(0)
    chunks = 200

    def flood(session: FrameSession) -> None:
        session.started()
        for _ in range(chunks):
            session.send(FrameType.STDOUT, bytes(65536))
            sent.release()
        session.exit(0)

    api.on("POST", EXEC, talk=flood)
    process = banger_process("vm", "exec", "web", "yes")
    assert sent.acquire(timeout=20)
    while sent.acquire(timeout=0.3):
        pass
    assert process.stdout is not None
    total = len(process.stdout.read())
    process.communicate()
    assert total == chunks * 65536
    assert sent._value > 0, "everything was taken before anybody read it"


def test_first_interrupt_is_the_commands_and_the_second_is_ours(api: FakeApi) -> None:
    seen: list[bytes | None] = []
    ready = threading.Event()

    def stubborn(session: FrameSession) -> None:
        session.started()
        session.send(FrameType.STDOUT, b"up")
        seen.append(session.wait_for(FrameType.SIGNAL))
        ready.set()
        session.wait_for(FrameType.EXIT)

    api.on("POST", EXEC, talk=stubborn)
    process = banger_process("vm", "exec", "web", "sleep", "9")
    assert process.stdout is not None
    assert process.stdout.read(2) == b"up"
    process.send_signal(signal.SIGINT)
    assert ready.wait(10)
    passed_on = time.monotonic()
    eventually(lambda: time.monotonic() - passed_on > 0.2)  # one that follows at once is taken for the same
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert (process.returncode, seen) == (130, [b"INT"])


def test_interrupt_while_it_boots_hangs_up(api: FakeApi) -> None:
    booting, left = threading.Event(), threading.Event()

    def slow(session: FrameSession) -> None:
        session.send_json(FrameType.EVENT, event("step_finished", "disk", elapsed_s=0.1))
        booting.set()
        session.wait_for(FrameType.EXIT)
        left.set()

    api.on("POST", RUN, talk=slow)
    process = banger_process("run", "alpine", "true")
    assert process.stderr is not None
    assert process.stderr.readline() == b"  disk  100 ms\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert left.wait(10)


def test_terminal_is_raw_while_the_command_runs_and_restored_after(
    api: FakeApi, terminal: Callable[..., Terminal]
) -> None:
    sizes: list[dict[str, int]] = []

    def shell(session: FrameSession) -> None:
        session.send_json(FrameType.EVENT, event("step_started", "boot"))
        session.started()
        sizes.append(json.loads(session.wait_for(FrameType.RESIZE) or b""))
        session.send(FrameType.STDOUT, b"ready")
        typed = session.wait_for(FrameType.STDIN)
        sizes.append(json.loads(session.wait_for(FrameType.RESIZE) or b""))
        session.send(FrameType.STDOUT, b"typed %r" % typed)
        session.exit(5)

    api.on("POST", RUN, talk=shell)
    tty = terminal("run", "alpine", "sh")
    tty.read_until(b"ready")
    assert b"boot" in tty.output.partition(b"\x1b[J")[0], "progress is shown, then removed"
    assert not termios.tcgetattr(tty.slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    os.write(tty.master, b"\x03")
    fcntl.ioctl(tty.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    tty.process.send_signal(signal.SIGWINCH)
    tty.read_until(b"typed b'\\x03'")
    assert tty.process.wait(15) == 5
    assert termios.tcgetattr(tty.slave) == tty.before
    tty.close()
    assert config_of(api)["exec"]["tty"] == {"rows": 40, "columns": 100, "term": "xterm-256color"}
    assert sizes == [{"rows": 40, "columns": 100}, {"rows": 50, "columns": 120}]


def test_no_terminal_is_given_when_asked_not_to(api: FakeApi, terminal: Callable[..., Terminal]) -> None:
    def talk(session: FrameSession) -> None:
        session.started()
        session.send(FrameType.STDOUT, b"plain\n")
        session.exit(0)

    api.on("POST", EXEC, talk=talk)
    tty = terminal("vm", "exec", "--no-tty", "web", "sh")
    tty.read_until(b"plain")
    assert tty.close() == 0
    assert config_of(api)["tty"] is None


@pytest.mark.parametrize(
    ("flags", "stdin"), [(("-n",), subprocess.PIPE), ((), subprocess.DEVNULL)], ids=["-n", "from the null device"]
)
def test_command_without_input_is_known_as_one_before_it_begins(
    api: FakeApi, flags: tuple[str, ...], stdin: int
) -> None:
    """It has no pipe in the guest then, which some programs would read in place of their files."""
    before: list[FrameType] = []

    def talk(session: FrameSession) -> None:
        frame = session.receive()
        assert frame is not None
        before.append(frame[0])
        session.started()
        session.exit()

    api.on("POST", "/v1/vms/web/exec", talk=talk)
    process = banger_process("vm", "exec", *flags, "web", "rg", "word", stdin=stdin)
    process.communicate(timeout=30)
    assert (process.returncode, before) == (0, [FrameType.STDIN_EOF])


@pytest.mark.parametrize("arguments", [("vm", "exec", "-n", "web", "cat"), ("run", "--no-stdin", "alpine", "cat")])
def test_input_that_is_not_wanted_is_left_for_the_next_reader(api: FakeApi, arguments: tuple[str, ...]) -> None:
    seen: list[bytes] = []

    def cat(session: FrameSession) -> None:
        session.started()
        seen.append(session.read_stdin())
        session.exit(0)

    api.on("POST", EXEC, talk=cat)
    api.on("POST", RUN, talk=cat)
    command = f"{sys.executable} -m banger {' '.join(arguments)}; cat"
    done = subprocess.run(["sh", "-c", command], input=b"mine\n", capture_output=True, timeout=30, check=False)
    assert (done.stdout, seen) == (b"mine\n", [b""])


def test_loop_that_reads_lines_gets_all_of_them(api: FakeApi) -> None:
    def say(session: FrameSession) -> None:
        session.started()
        session.read_stdin()
        session.send(FrameType.STDOUT, session.config["argv"][0].encode() + b"\n")
        session.exit(0)

    api.on("POST", EXEC, talk=say)
    loop = f'while read -r word; do {sys.executable} -m banger vm exec --no-stdin web "$word"; done'
    done = subprocess.run(["sh", "-c", loop], input=b"one\ntwo\nthree\n", capture_output=True, timeout=30, check=False)
    assert done.stdout == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("flags", [["-i"], ["-it"], ["-ti"], ["--interactive", "--tty"]])
def test_letters_of_other_tools_are_understood(api: FakeApi, flags: list[str]) -> None:
    def echo(session: FrameSession) -> None:
        session.started()
        session.send(FrameType.STDOUT, session.wait_for(FrameType.STDIN) or b"")
        session.exit(0)

    api.on("POST", EXEC, talk=echo)
    assert banger("vm", "exec", *flags, "web", "sh", stdin=b"typed")[:2] == (0, b"typed")
    assert (config_of(api)["tty"] is not None) is (flags != ["-i"])


@pytest.mark.parametrize(
    ("flags", "typed", "sent"),
    [
        (["-t"], b"line\n", b"line\n\x04"),
        (["-it"], b"half", b"half\x04\x04"),
        (["-nt"], b"x", b"\x04"),
    ],
)
def test_terminal_without_one_here_is_told_the_end_of_input_by_its_key(
    api: FakeApi, flags: list[str], typed: bytes, sent: bytes
) -> None:
    seen = bytearray()

    def cat(session: FrameSession) -> None:
        session.started()
        while not seen.endswith(b"\x04") and (frame := session.receive()) is not None:
            assert frame[0] is not FrameType.STDIN_EOF, "which would end the terminal"
            seen.extend(frame[1] if frame[0] is FrameType.STDIN else b"")
        session.exit(0)

    api.on("POST", EXEC, talk=cat)
    assert banger("vm", "exec", *flags, "web", "cat", stdin=typed)[0] == 0
    assert seen.startswith(sent[: len(typed) + 1])


def test_wish_for_input_and_for_none_is_refused(api: FakeApi) -> None:
    code, _, err = banger("vm", "exec", "-i", "-n", "web", "sh")
    assert (code, err) == (2, b"error: --interactive and --no-stdin exclude each other\n")
