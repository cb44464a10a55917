"""The guest agent's own program runs commands, here on this host: how they start, what reaches them, how they end."""

from __future__ import annotations

import os
import re
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.agent.messages import RUNS, Cause, ExecFlag, ExecSpec, Request, Status, Target, end
from banger.agent.wire import Feature, Kind
from tests.support.agent import Agent, Host, running_agent
from tests.support.waiting import eventually

pytest_plugins = ("tests.support.agent_fixtures",)

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")


@pytest.fixture(params=["started", "spare"])
def host(agent: Agent, request: pytest.FixtureRequest) -> Iterator[Host]:
    """A session of the test's own, with a process that waits for its first command or without one.

    The agent has nothing left of it afterwards.
    """
    before = agent.descriptors()
    agent.host.session_credit = True
    agent.host.greet()
    if request.param == "spare":
        agent.host.run(ExecSpec(("true",)).request())
        eventually(agent.spares, what="a process waits for the next command")
    yield agent.host
    agent.host.greet()
    eventually(lambda: not agent.children(), what="no process is left")
    eventually(lambda: agent.descriptors() == before, what="no descriptor is left")


def shell(script: str, **options: object) -> Request:
    return ExecSpec(("sh", "-c", script), **options).request()  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_command_ends_with_its_own_code(host: Host, code: int) -> None:
    ended = host.run(shell(f"exit {code}")).exit
    assert (ended.killed, ended.code, ended.cause) == (False, code, Cause.BY_ITSELF)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGBUS, signal.SIGUSR1, 34])
def test_command_that_is_killed_ends_with_the_signal(host: Host, number: int) -> None:
    ended = host.run(shell(f"kill -{int(number)} $$")).exit
    assert (ended.killed, ended.code) == (True, number)


def test_input_and_both_outputs_arrive_apart_and_whole(host: Host) -> None:
    data = os.urandom(300_000)
    stream = host.run(shell("cat; echo remark >&2"), stdin=data)
    assert (bytes(stream.out), bytes(stream.err), stream.exit.code) == (data, b"remark\n", 0)


@pytest.mark.parametrize("kept_by", ["a process that waits", "one that is started for it"])
def test_command_without_input_has_the_null_device_as_in_a_container(host: Host, kept_by: str) -> None:
    """``rg`` and others search a pipe, if it is empty too, and not the directory."""
    assert host.welcome is not None
    assert host.welcome.features & Feature.NO_INPUT
    script = 'test "$(readlink /proc/self/fd/0)" = /dev/null && cat && echo null'
    more = {"id": "mine"} if kept_by.startswith("one") else {}
    host.run(ExecSpec(("true",)).request())  # another one waits from then on
    spec = ExecSpec(("sh", "-c", script), flags=ExecFlag.SESSION_ENV | ExecFlag.NO_INPUT, has_input=False, **more)
    assert host.run(spec.request()).out == b"null\n"
    assert b"pipe:" in host.run(ExecSpec(("readlink", "/proc/self/fd/0")).request()).out


def test_end_of_input_is_seen_and_none_is_seen_before(host: Host) -> None:
    stream = host.open(shell("cat; echo ended"))
    host.write(stream, b"one\n")
    host.wait(lambda: stream.out == b"one\n")
    assert stream.result is None
    host.write(stream, b"", end=True)
    assert host.finish(stream).out == b"one\nended\n"


def test_environment_is_a_base_and_what_was_asked_for_where_the_last_counts(host: Host) -> None:
    spec = ExecSpec(("env",), env=("A=1", "A=2", "LANG=xx", "EMPTY=", "MULTI=a\nb"), flags=ExecFlag.NONE)
    seen = bytes(host.run(spec.request()).out).decode()
    assert sorted(seen.replace("a\nb", "a|b").splitlines()) == sorted(
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=2", "LANG=xx", "EMPTY=", "MULTI=a|b",
            *(f"{name}={value}" for name, value in (("USER", "root"), ("LOGNAME", "root"), ("HOME", "/root"))),
        ]
    )  # fmt: skip


def test_environment_of_the_configuration_lies_between_base_and_request(tmp_path: Path) -> None:
    (tmp_path / "environment").write_bytes(b"A=image\0B=image\0LANG=C\0no assignment\0")
    with running_agent(options=("-e", str(tmp_path / "environment"))) as agent:
        spec = ExecSpec(("sh", "-c", "echo $A $B $LANG"), env=("B=request",))
        assert agent.host.run(spec.request()).out == b"image request C\n"


def test_program_is_looked_up_in_the_path_that_was_asked_for(host: Host, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "tool").chmod(0o755)
    assert host.run(ExecSpec(("tool",), env=(f"PATH=/none:{tmp_path}:/bin",)).request()).out == b"found\n"
    assert host.run(ExecSpec(("./tool",), workdir=str(tmp_path)).request()).out == b"found\n"


def test_working_directory_is_the_root_or_what_was_asked_for(host: Host, tmp_path: Path) -> None:
    assert host.run(shell("pwd")).out == b"/\n"
    assert host.run(shell("pwd", workdir=str(tmp_path))).out.decode().strip() == str(tmp_path)


def test_what_cannot_be_executed_says_why_and_never_starts(host: Host, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo a shell ran it")
    lost = tmp_path / "lost"
    lost.write_text("#!/none/such\n")
    plain = tmp_path / "plain"
    plain.write_text("")
    for path in (script, lost):
        path.chmod(0o755)
    big = "x" * 131072
    cases = {
        ("none",): (Status.NOT_FOUND, 'command "none" not found'),
        ("/none/such",): (Status.NOT_FOUND, 'command "/none/such" not found'),
        ("",): (Status.NOT_FOUND, 'command "" not found'),
        ("/etc",): (Status.NOT_EXECUTABLE, '"/etc" cannot be executed'),
        (str(plain),): (Status.NOT_EXECUTABLE, f'"{plain}" cannot be executed'),
        (str(script),): (Status.NOT_EXECUTABLE, f'cannot execute "{script}": exec format error'),
        (str(lost),): (
            Status.NOT_FOUND,
            f'cannot execute "{lost}": no such file or directory (its interpreter or loader?)',
        ),
        ("true", big): (Status.NOT_EXECUTABLE, 'cannot execute "/usr/bin/true": argument list too long'),
    }
    for argv, expected in cases.items():
        stream = host.run(ExecSpec(argv).request())
        assert stream.result is not None
        assert (stream.result.status, stream.result.message) == expected
        assert stream.started is None


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"user": "no one"}, Status.NO_USER, 'no user "no one" in /etc/passwd of the image'),
        ({"user": "root:none"}, Status.NO_GROUP, 'no group "none" in /etc/group of the image'),
        ({"workdir": "/none/such"}, Status.NO_DIRECTORY, 'cannot enter the directory "/none/such"'),
        ({"env": ("NAME",)}, Status.BAD_REQUEST, "a variable is NAME=VALUE"),
        ({"id": "../up"}, Status.BAD_REQUEST, "an ID is made of"),
    ],
)
def test_request_that_cannot_be_met_says_why(host: Host, options: dict[str, object], status: int, message: str) -> None:
    stream = host.run(shell("true", **options))
    assert stream.result is not None
    assert stream.result.status == status
    assert stream.result.message.startswith(message)


@as_root
@pytest.mark.parametrize(
    ("user", "seen"),
    [
        ("", "0 0 root /root"),
        ("root", "0 0 root /root"),
        ("nobody", "65534 65534 nobody /nonexistent"),
        ("65534", "65534 65534 nobody /nonexistent"),
        ("nobody:daemon", "65534 1 nobody /nonexistent"),
        (":1", "0 1 root /root"),
        ("4321", "4321 0 4321 /"),
        ("4321:77", "4321 77 4321 /"),
    ],
)
def test_user_and_group_are_those_of_the_image(host: Host, user: str, seen: str) -> None:
    stream = host.run(shell("echo $(id -u) $(id -g) $USER $HOME", user=user))
    assert stream.out.decode().strip() == seen


@as_root
def test_user_can_open_the_standard_streams_by_name(host: Host) -> None:
    script = "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin"
    stream = host.run(shell(script, user="nobody"), stdin=b"in")
    assert (bytes(stream.out), bytes(stream.err)) == (b"out\nin", b"err\n")


def test_command_gets_nothing_of_the_agents_own(host: Host) -> None:
    script = "ls /proc/self/fd | wc -w; cat /proc/self/oom_score_adj; umask; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    lines = host.run(shell(script)).out.decode().split()
    assert lines[:3] == ["4", "0", "0022"]
    assert lines[4::2] == ["0000000000000000"] * 2


def test_command_leads_a_session_and_a_group_of_its_own(host: Host) -> None:
    stream = host.run(shell("echo $$; cut -d' ' -f5,6 /proc/$$/stat"))
    assert stream.started is not None
    pid = str(struct.unpack("<I", stream.started)[0])
    assert stream.out.decode().split() == [pid] * 3


def test_what_a_command_leaves_in_the_background_goes_on_and_holds_nothing_up(host: Host) -> None:
    stream = host.run(shell("sleep 60 & echo $!; (while sleep 0.01; do echo more; done) & echo $!"))
    pids = [int(word) for word in stream.out.split() if word.isdigit()]
    assert len(pids) == 2
    assert alive(pids[0])
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_last_output_of_a_command_is_never_lost(host: Host) -> None:
    for _ in range(30):
        assert host.run(ExecSpec(("head", "-c", "60000", "/dev/zero")).request()).out == bytes(60000)


def test_terminal_has_the_size_and_the_name_of_one_and_is_resized(host: Host) -> None:
    script = 'tty; stty size; trap "stty size; exit 3" WINCH; echo ready; while :; do sleep 0.05; done'
    stream = host.open(shell(script, flags=ExecFlag.TTY, rows=24, columns=80))
    host.wait(lambda: b"ready" in stream.out)
    host.send(stream, Kind.RESIZE, struct.pack("<HH", 30, 100))
    assert host.finish(stream).exit.code == 3
    assert re.fullmatch(rb"/dev/pts/\d+\r\n24 80\r\nready\r\n30 100\r\n", bytes(stream.out))


def test_terminal_takes_interrupts_and_the_end_of_input(host: Host) -> None:
    stream = host.open(shell("trap 'echo caught' INT; echo ready; while :; do sleep 0.05; done", flags=ExecFlag.TTY))
    host.wait(lambda: b"ready" in stream.out)
    host.write(stream, b"\x03")
    host.wait(lambda: b"caught" in stream.out)
    stream = host.open(shell("stty -echo; echo ready; cat; echo ended", flags=ExecFlag.TTY))
    host.wait(lambda: b"ready" in stream.out)
    host.write(stream, b"line\n", end=True)
    assert host.finish(stream).out == b"ready\r\nline\r\nended\r\n"


@pytest.mark.parametrize(("target", "seen"), [(Target.PROCESS, b"shell\n"), (Target.GROUP, b"child\nshell\n")])
def test_signal_reaches_whom_it_is_for(host: Host, target: Target, seen: bytes) -> None:
    script = "sh -c 'trap \"echo child; exit\" USR1; echo ready; while :; do sleep 0.05; done' & trap 'done=1' USR1"
    stream = host.open(shell(f"{script}; while [ -z $done ]; do wait; done; sleep 0.3; echo shell; kill -9 $! 2>&-"))
    host.wait(lambda: b"ready" in stream.out)
    host.send(stream, Kind.SIGNAL, bytes([target, signal.SIGUSR1]))
    assert bytes(host.finish(stream).out) == b"ready\n" + seen


DETACHED = "trap '' HUP; setsid sleep 300 & echo $!; sleep 300 & echo $!; echo ready; "


@pytest.mark.parametrize("how", ["cancel", "timeout", "session"])
def test_command_that_is_ended_is_killed_with_its_group_and_its_session(agent: Agent, host: Host, how: str) -> None:
    script = DETACHED + "while :; do sleep 0.1; done"
    stream = host.open(shell(script, grace_ms=150, timeout_ms=1000 if how == "timeout" else 0))
    host.wait(lambda: b"ready" in stream.out)
    pids = [int(word) for word in stream.out.split() if word.isdigit()]
    if how == "cancel":
        host.send(stream, Kind.CANCEL)
    if how == "session":
        assert host.greet().ended_streams == 1
    else:
        ended = host.finish(stream).exit
        expected = Cause.TIMEOUT if how == "timeout" else Cause.CANCELLED
        assert (ended.killed, ended.code, ended.cause) == (True, signal.SIGKILL, expected)
    eventually(lambda: not any(alive(pid) for pid in pids), what="all that it has started is gone")


def test_command_that_heeds_the_hang_up_ends_in_its_own_way(host: Host) -> None:
    stream = host.open(
        shell("trap 'echo bye >&2; exit 9' HUP; echo ready; while :; do sleep 0.05; done", timeout_ms=500)
    )
    ended = host.finish(stream).exit
    assert (ended.code, ended.cause, b"bye\n" in stream.err) == (9, Cause.TIMEOUT, True)


def test_kept_command_outlives_its_session_and_can_be_found_and_ended(agent: Agent, host: Host) -> None:
    host.open(shell("yes", id="mine", flags=ExecFlag.KEPT))
    stream = host.open(shell("while :; do sleep 0.1; done", id="other"))
    host.wait(lambda: stream.started is not None)
    host.greet()
    eventually(lambda: len(agent.children()) == 1, what="only the kept one is left")
    pattern = rf"mine {agent.children()[0]} \d+ kept\n"
    assert re.fullmatch(pattern, host.run(RUNS).out.decode())
    stream = host.run(shell("true", id="mine"))
    assert stream.result is not None
    assert (stream.result.status, stream.result.message) == (Status.BAD_REQUEST, "a command with this ID runs already")
    host.run(end("mine"))
    if agent.children():  # without cgroups nobody is found by an ID
        os.kill(agent.children()[0], signal.SIGKILL)
    eventually(lambda: not host.run(RUNS).out, what="it has ended")


def test_command_that_stops_reading_says_so_and_costs_no_memory(agent: Agent, host: Host) -> None:
    stream = host.open(shell("exec <&-; echo closed; sleep 300"))
    host.wait(lambda: b"closed" in stream.out)
    host.write(stream, bytes(1 << 20))
    assert stream.stopped
    host.send(stream, Kind.CANCEL)


def test_command_that_does_not_read_takes_no_more_than_its_window(agent: Agent, host: Host) -> None:
    stream = host.open(shell("sleep 300"))
    sent = 0
    while stream.input_credit:
        piece = bytes(min(stream.input_credit, 32000))
        stream.input_credit -= len(piece)
        sent += len(piece)
        host.send(stream, Kind.DATA, piece)
        assert host.run(shell("echo beside")).out == b"beside\n"
    assert sent < 4 << 20
    assert agent.resident_kib() < 4096


def test_login_shell_is_the_accounts_in_its_home(host: Host) -> None:
    stream = host.run(ExecSpec(()).request(), stdin=b"echo $0 $PWD $SHELL\n")
    home = Path("~root").expanduser() if os.getuid() == 0 else Path.home()
    assert re.fullmatch(rf"-\w+ {home} /\S+\n", stream.out.decode())


@pytest.mark.parametrize("command", ["sleep 30", "echo said; sleep 30"])
def test_command_without_input_is_told_to_run_before_it_ends(host: Host, command: str) -> None:
    stream = host.open(ExecSpec(("sh", "-c", command), flags=ExecFlag.NONE, has_input=False).request())
    host.wait(lambda: stream.started is not None, 10)
    assert stream.result is None
    host.send(stream, Kind.CANCEL)
    host.finish(stream)
