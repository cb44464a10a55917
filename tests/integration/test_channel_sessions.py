"""Commands over a real ssh server: streams, statuses, signals, terminals."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, ExitStatus
from banger.core.models import GuestAccess
from banger.guest import sessions
from banger.guest.session_output import HIGH_WATER
from banger.guest.sessions import HANGUP_GRACE_S, RECEIVE_WINDOW, GuestSession
from tests.support.channels import TERMINAL, Channels, channels, finish, read_until
from tests.support.dropbear import Guest, dropbear, needs_dropbear
from tests.support.leaks import all_pids
from tests.support.waiting import eventually

pytestmark = [needs_dropbear, pytest.mark.root]

TEN_MIB = 10 << 20
WINDOW = 1 << 20  # of the guest's ssh server


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with dropbear(tmp_path_factory.mktemp("guest"), window=WINDOW) as running:
        yield running


@pytest.fixture
def channel() -> Iterator[Channels]:
    with channels() as made:
        yield made


@pytest.fixture
def access(guest: Guest) -> GuestAccess:
    return guest.access


def running(marker: str) -> list[int]:
    """Ids of the processes with ``marker`` among their arguments; the server's namespace is visible from here."""
    return [pid for pid in all_pids() if os.fsencode(marker) in read_command_line(pid)]


def read_command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exec_exit_code_is_the_commands_own(channel: Channels, access: GuestAccess, code: int) -> None:
    assert channel.exec(access, "sh", "-c", f"exit {code}").status == ExitStatus(code)


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("KILL", 137), ("SEGV", 139), ("INT", 130)])
def test_exec_killed_by_a_signal_is_128_plus_its_number(
    channel: Channels, access: GuestAccess, name: str, code: int
) -> None:
    assert channel.exec(access, "sh", "-c", f"kill -{name} $$").status == ExitStatus(code, name)


def test_exec_killed_by_a_signal_dropbear_has_no_name_for_is_an_unknown_outcome(
    channel: Channels, access: GuestAccess
) -> None:
    with pytest.raises(BangerError) as caught:
        channel.exec(access, "sh", "-c", "kill -BUS $$")
    assert caught.value.kind is ErrorKind.UNKNOWN_OUTCOME
    assert "without an exit status" in caught.value.message


def test_exec_streams_come_back_apart(channel: Channels, access: GuestAccess) -> None:
    done = channel.exec(access, "sh", "-c", "printf out; printf err >&2; printf '\\000\\377'")
    assert (done.stdout, done.stderr) == (b"out\0\xff", b"err")


def test_exec_environment_directory_and_user_reach_the_guest(channel: Channels, access: GuestAccess) -> None:
    script = 'printf "%s|%s|%s" "$GREETING" "$PWD" "$TEST_USER"'
    done = channel.exec(access, "sh", "-c", script, env=("GREETING=it's\n*",), workdir="/usr", user="nobody:users")
    assert done.stdout == b"it's\n*|/usr|nobody:users"


def test_exec_ten_mebibytes_in_and_out_are_byte_exact(channel: Channels, access: GuestAccess) -> None:
    data = os.urandom(TEN_MIB)
    done = channel.exec(access, "cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert done.status == ExitStatus(0)


@pytest.mark.parametrize("size", [9_500, 90_000])
def test_exec_command_longer_than_dropbear_takes_runs_all_the_same(
    channel: Channels, access: GuestAccess, size: int
) -> None:
    text = ("it's a\nline " * size)[:size]
    done = channel.exec(access, "sh", "-c", 'cat; printf %s "$1"; ls /run/banger >&2; exit 7', "sh", text, stdin=b"in:")
    assert done.stdout == b"in:" + text.encode()
    assert b"launch" not in done.stderr
    assert done.status == ExitStatus(7)


def test_exec_command_that_closed_its_output_still_gets_its_input(
    channel: Channels, access: GuestAccess, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"

    async def scenario() -> ExitStatus:
        request = ExecRequest(("sh", "-c", f'exec >&- 2>&-; cat <&0 >"{copy}"'))
        session = await channel.guests.open_session(access, request)
        assert [chunk async for chunk in session.output()] == []
        assert await session.write_stdin(b"late")
        session.write_eof()
        status = await session.wait()
        await session.close()
        return status

    assert channel.do(scenario()) == ExitStatus(0)
    assert copy.read_bytes() == b"late"


def test_exec_input_the_command_does_not_read_does_not_hurt_its_output(channel: Channels, access: GuestAccess) -> None:
    async def scenario() -> tuple[bool, bytes, ExitStatus]:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", "exec <&-; echo here; exit 3")))

        async def feed() -> bool:
            while await session.write_stdin(bytes(1 << 16)):
                pass
            return await session.write_stdin(b"more")

        feeding = asyncio.create_task(feed())
        output = b"".join([data async for _, data in session.output()])
        status = await session.wait()
        still_taken = await feeding
        await session.close()
        return still_taken, output, status

    assert channel.do(scenario()) == (False, b"here\n", ExitStatus(3))


async def settled(value: Callable[[], int]) -> int:
    """The value once it has not changed for a third of a second: it would have, many times, were nothing in the way."""
    last = -1
    while (now := value()) != last or now == 0:
        last = now
        await asyncio.sleep(0.3)
    return last


def test_exec_reader_that_takes_its_time_stops_the_command_and_gets_everything(
    channel: Channels, access: GuestAccess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()
    script = f'for i in $(seq 160); do head -c 65536 /dev/zero; echo >>"{log}"; done'

    async def scenario() -> tuple[int, int]:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", script)))
        blocks = await settled(lambda: log.stat().st_size)
        done = await finish(session)
        await session.close()
        return blocks, len(done.stdout)

    blocks, total = channel.do(scenario())
    assert total == TEN_MIB
    assert blocks * 65536 < 2 * RECEIVE_WINDOW + HIGH_WATER + 4 * 65536


def test_exec_command_that_takes_its_time_holds_the_writer_back_and_gets_everything(
    channel: Channels, access: GuestAccess, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f'until [ -e "{go}" ]; do sleep 0.02; done; exec wc -c'
    written = 0

    async def scenario() -> tuple[int, bytes]:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", script)))

        async def feed() -> None:
            nonlocal written
            for _ in range(160):
                await session.write_stdin(bytes(65536))
                written += 65536
            session.write_eof()

        feeding = asyncio.create_task(feed())
        held_at = await settled(lambda: written)
        go.touch()
        output = b"".join([data async for _, data in session.output()])
        await feeding
        await session.close()
        return held_at, output

    held_at, counted = channel.do(scenario())
    assert held_at < WINDOW + (1 << 20)
    assert int(counted) == TEN_MIB


def test_exec_endless_output_to_a_slow_reader_keeps_memory_bounded(channel: Channels, access: GuestAccess) -> None:
    async def scenario() -> None:
        session = await channel.guests.open_session(access, ExecRequest(("cat", "/dev/zero")))
        received = 0
        async for _, data in session.output():
            received += len(data)
            await asyncio.sleep(0.005)
            if received > 4 * TEN_MIB:
                break
        await session.close()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    channel.do(scenario())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_terminal_has_the_size_it_was_given_and_follows_a_resize(channel: Channels, access: GuestAccess) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"

    async def scenario() -> None:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", script), tty=TERMINAL))
        await read_until(session, b"24 80")
        session.resize(50, 132)
        await read_until(session, b"50 132")
        await session.close()

    channel.do(scenario())


def test_terminal_type_is_handed_on(channel: Channels, access: GuestAccess) -> None:
    done = channel.exec(access, "sh", "-c", 'echo "$TERM"; [ -t 0 ] && [ -t 1 ] && [ -t 2 ]', tty=TERMINAL)
    assert (done.stdout, done.status) == (b"xterm\r\n", ExitStatus(0))


def test_terminal_ctrl_c_interrupts_the_command(channel: Channels, access: GuestAccess) -> None:
    async def scenario() -> ExitStatus:
        session = await channel.guests.open_session(
            access, ExecRequest(("sh", "-c", "echo ready; exec sleep 60"), tty=TERMINAL)
        )
        await read_until(session, b"ready")
        await session.write_stdin(b"\x03")
        status = await session.wait()
        await session.close()
        return status

    assert channel.do(scenario(), 10) == ExitStatus(130, "INT")


def test_send_signal_reaches_a_command_without_a_terminal(channel: Channels, access: GuestAccess) -> None:
    script = "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.05; done"

    async def scenario() -> tuple[bytes, ExitStatus]:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", script)))
        await read_until(session, b"ready")
        session.send_signal("USR1")
        done = await finish(session)
        await session.close()
        session.send_signal("USR1")  # it has ended: nothing happens
        session.resize(1, 1)
        session.write_eof()
        return done.stdout, done.status

    assert channel.do(scenario()) == (b"caught\n", ExitStatus(9))


def test_send_signal_unknown_name_is_a_usage_error(channel: Channels, access: GuestAccess) -> None:
    async def scenario() -> None:
        session = await channel.guests.open_session(access, ExecRequest(("sleep", "60")))
        try:
            session.send_signal("NONSENSE")
        finally:
            await session.close()

    with pytest.raises(BangerError) as caught:
        channel.do(scenario())
    assert caught.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize(
    ("script", "heeds_the_hangup"),
    [
        ("echo ready; while :; do sleep 0.05; done", True),
        ("trap '' HUP; echo ready; while :; do sleep 0.05; done", False),
    ],
    ids=["obedient", "ignores-the-hangup"],
)
def test_close_ends_the_command(
    channel: Channels, access: GuestAccess, script: str, heeds_the_hangup: bool, tmp_path: Path
) -> None:
    marker = str(tmp_path)

    async def scenario() -> float:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", script, marker)))
        await read_until(session, b"ready")
        assert running(marker)
        begun = time.monotonic()
        await session.close()
        await session.close()
        return time.monotonic() - begun

    assert (channel.do(scenario()) < HANGUP_GRACE_S) is heeds_the_hangup
    eventually(lambda: not running(marker), what="the command has ended")


def test_close_ends_what_an_abandoned_command_has_started_but_not_what_one_that_ended_has_left(
    channel: Channels, access: GuestAccess
) -> None:
    async def scenario(script: str) -> tuple[str, bytes]:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", f'echo "$TEST_ID."; {script}')))
        name = (await read_until(session, b".")).decode().partition(".")[0]
        if script == "true":
            await session.wait()
        await session.close()
        await session.close()
        return name, (await channel.exec_async(access, "cat", "/run/banger/ended")).stdout

    for script, times in (("sleep 60", 1), ("trap '' HUP; sleep 60; sleep 60", 1), ("true", 0)):
        name, ended = channel.do(scenario(script))
        assert ended.decode().split().count(name) == times


def test_close_ends_a_command_that_its_own_output_has_stopped(
    channel: Channels, access: GuestAccess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()

    async def scenario() -> float:
        script = f'while :; do head -c 65536 /dev/zero; echo >>"{log}"; done'
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", script)))
        await settled(lambda: log.stat().st_size)
        begun = time.monotonic()
        await session.close()
        return time.monotonic() - begun

    assert channel.do(scenario()) < HANGUP_GRACE_S
    eventually(lambda: not running(str(log)), what="the command has ended")


def test_close_on_a_terminal_hangs_up_what_runs_in_the_foreground(
    channel: Channels, access: GuestAccess, tmp_path: Path
) -> None:
    marker = str(tmp_path)

    async def scenario() -> None:
        script = f"sh -c 'echo ready; while :; do sleep 0.05; done' {marker}; true"
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", script), tty=TERMINAL))
        await read_until(session, b"ready")
        assert running(marker)
        await session.close()

    channel.do(scenario())
    eventually(lambda: not running(marker), what="the foreground program has ended")


def test_sessions_side_by_side_do_not_disturb_each_other(channel: Channels, access: GuestAccess) -> None:
    async def scenario() -> list[bytes]:
        stuck = await channel.guests.open_session(access, ExecRequest(("cat", "/dev/zero")))  # nobody reads it
        many = [channel.exec_async(access, "sh", "-c", f"cat; echo {n}", stdin=b"x" * 300_000) for n in range(8)]
        done = await asyncio.gather(*many)
        await stuck.close()
        return [one.stdout[300_000:] for one in done]

    assert channel.do(scenario()) == [f"{n}\n".encode() for n in range(8)]


def test_tool_gets_its_arguments_and_its_input(channel: Channels, access: GuestAccess, tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"content")

    async def scenario() -> bytes:
        packing = await channel.guests.open_tool(access, ["tar", "-C", str(tmp_path), "-c", "a b"])
        packed = await finish(packing)
        await packing.close()
        unpacking = await channel.guests.open_tool(access, ["tar", "-xO"])
        unpacked = await finish(unpacking, packed.stdout)
        await unpacking.close()
        return unpacked.stdout

    assert channel.do(scenario()) == b"content"


def test_open_session_caller_gone_meanwhile_leaves_no_command_behind(
    channel: Channels, access: GuestAccess, tmp_path: Path
) -> None:
    marker = str(tmp_path)

    async def scenario() -> None:
        request = ExecRequest(("sh", "-c", "while :; do sleep 0.05; done", marker))
        opening: asyncio.Task[GuestSession] = asyncio.create_task(channel.guests.open_session(access, request))
        await asyncio.sleep(0)  # it is on its way now
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await channel.exec_async(access, "true")  # by now the first command has been started, too

    channel.do(scenario())
    eventually(lambda: not running(marker), what="the command has ended")


@pytest.mark.parametrize(
    ("command", "kind"),
    [(["cat", "/dev/zero"], ErrorKind.INVALID), (["sleep", "600"], ErrorKind.TIMEOUT)],
    ids=["flood", "silence"],
)
def test_answer_of_a_guest_that_floods_or_is_silent_has_a_bound_and_a_deadline(
    channel: Channels, access: GuestAccess, command: list[str], kind: ErrorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "ANSWER_TIMEOUT_S", 5.0 if kind is ErrorKind.INVALID else 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def ask() -> object:
        return await (await channel.guests.open_tool(access, command)).answer()

    with pytest.raises(BangerError) as caught:
        channel.do(ask())
    assert caught.value.kind is kind
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10  # KiB
    eventually(lambda: channel.guests.connections(access.vm_id)[1] == 0, what="the command was ended")


def test_answer_of_a_tool_comes_with_its_status(channel: Channels, access: GuestAccess) -> None:
    async def ask() -> sessions.Answer:
        return await (await channel.guests.open_tool(access, ["sh", "-c", "echo out; echo err >&2; exit 3"])).answer()

    answer = channel.do(ask())
    assert (answer.status.code, answer.stdout, answer.stderr) == (3, b"out\n", b"err\n")
