"""Commands in a guest by the real agent: streams, statuses, signals, terminals, ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.agent.processes import HANGUP_GRACE_S
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExitStatus
from banger.core.ports import GuestProcess
from tests.support.agent_world import TERMINAL, AgentWorld, finish, needs_agent, read_until
from tests.support.leaks import all_pids
from tests.support.waiting import eventually

pytest_plugins = ("tests.support.agent_fixtures",)

pytestmark = needs_agent

TEN_MIB = 10 << 20
#: Of a stream's input, and of its output, with what pipes and sockets hold between.
MOST_AHEAD = 4 << 20


def running(marker: str) -> list[int]:
    """Ids of the processes with ``marker`` among their arguments; the server's namespace is visible from here."""
    return [pid for pid in all_pids() if os.fsencode(marker) in read_command_line(pid)]


def read_command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exec_exit_code_is_the_commands_own(world: AgentWorld, code: int) -> None:
    assert world.exec("sh", "-c", f"exit {code}").status == ExitStatus(code)


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("KILL", 137), ("SEGV", 139), ("INT", 130)])
def test_exec_killed_by_a_signal_is_128_plus_its_number(world: AgentWorld, name: str, code: int) -> None:
    assert world.exec("sh", "-c", f"kill -{name} $$").status == ExitStatus(code, name)


def test_exec_streams_come_back_apart(world: AgentWorld) -> None:
    done = world.exec("sh", "-c", "printf out; printf err >&2; printf '\\000\\377'")
    assert (done.stdout, done.stderr) == (b"out\0\xff", b"err")


def test_exec_ten_mebibytes_in_and_out_are_byte_exact(world: AgentWorld) -> None:
    data = os.urandom(TEN_MIB)
    done = world.exec("cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert done.status == ExitStatus(0)


def test_exec_command_that_closed_its_output_still_gets_its_input(world: AgentWorld, tmp_path: Path) -> None:
    copy = tmp_path / "copy"

    async def scenario() -> ExitStatus:
        process = await world.start("sh", "-c", f'exec >&- 2>&-; cat <&0 >"{copy}"')
        assert await process.write_stdin(b"late")
        process.write_eof()
        assert [chunk async for chunk in process.output()] == []
        status = await process.wait()
        await process.close()
        return status

    assert world.do(scenario()) == ExitStatus(0)
    assert copy.read_bytes() == b"late"


def test_exec_input_the_command_does_not_read_does_not_hurt_its_output(world: AgentWorld) -> None:
    async def scenario() -> tuple[bool, bytes, ExitStatus]:
        process = await world.start("sh", "-c", "exec <&-; echo here; exit 3")

        async def feed() -> bool:
            while await process.write_stdin(bytes(1 << 16)):
                pass
            return await process.write_stdin(b"more")

        feeding = asyncio.create_task(feed())
        output = b"".join([data async for _, data in process.output()])
        status = await process.wait()
        still_taken = await feeding
        await process.close()
        return still_taken, output, status

    assert world.do(scenario()) == (False, b"here\n", ExitStatus(3))


async def settled(value: Callable[[], int]) -> int:
    """The value once it has not changed for a third of a second: it would have, many times, were nothing in the way."""
    last = -1
    while (now := value()) != last or now == 0:
        last = now
        await asyncio.sleep(0.3)
    return last


def test_exec_reader_that_takes_its_time_stops_the_command_and_gets_everything(
    world: AgentWorld, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()
    script = f'for i in $(seq 160); do head -c 65536 /dev/zero; echo >>"{log}"; done'

    async def scenario() -> tuple[int, int]:
        process = await world.start("sh", "-c", script)
        blocks = await settled(lambda: log.stat().st_size)
        done = await finish(process)
        await process.close()
        return blocks, len(done.stdout)

    blocks, total = world.do(scenario())
    assert total == TEN_MIB
    assert blocks * 65536 < MOST_AHEAD


def test_exec_command_that_takes_its_time_holds_the_writer_back_and_gets_everything(
    world: AgentWorld, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f'until [ -e "{go}" ]; do sleep 0.02; done; exec wc -c'
    written = 0

    async def scenario() -> tuple[int, bytes]:
        process = await world.start("sh", "-c", script)

        async def feed() -> None:
            nonlocal written
            for _ in range(160):
                await process.write_stdin(bytes(65536))
                written += 65536
            process.write_eof()

        feeding = asyncio.create_task(feed())
        held_at = await settled(lambda: written)
        go.touch()
        output = b"".join([data async for _, data in process.output()])
        await feeding
        await process.close()
        return held_at, output

    held_at, counted = world.do(scenario())
    assert held_at < MOST_AHEAD
    assert int(counted) == TEN_MIB


def test_exec_endless_output_to_a_slow_reader_keeps_memory_bounded(world: AgentWorld) -> None:
    async def scenario() -> None:
        process = await world.start("cat", "/dev/zero")
        received = 0
        async for _, data in process.output():
            received += len(data)
            await asyncio.sleep(0.005)
            if received > 4 * TEN_MIB:
                break
        await process.close()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    world.do(scenario())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_terminal_has_the_size_it_was_given_and_follows_a_resize(world: AgentWorld) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"

    async def scenario() -> None:
        process = await world.start("sh", "-c", script, tty=TERMINAL)
        await read_until(process, b"24 80")
        process.resize(50, 132)
        await read_until(process, b"50 132")
        await process.close()

    world.do(scenario())


def test_terminal_type_is_handed_on(world: AgentWorld) -> None:
    done = world.exec("sh", "-c", 'echo "$TERM"; [ -t 0 ] && [ -t 1 ] && [ -t 2 ]', tty=TERMINAL)
    assert (done.stdout, done.status) == (b"xterm\r\n", ExitStatus(0))


def test_terminal_ctrl_c_interrupts_the_command(world: AgentWorld) -> None:
    async def scenario() -> ExitStatus:
        process = await world.start("sh", "-c", "echo ready; exec sleep 60", tty=TERMINAL)
        await read_until(process, b"ready")
        await process.write_stdin(b"\x03")
        status = await process.wait()
        await process.close()
        return status

    assert world.do(scenario(), 10) == ExitStatus(130, "INT")


def test_send_signal_reaches_a_command_without_a_terminal(world: AgentWorld) -> None:
    script = "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.05; done"

    async def scenario() -> tuple[bytes, ExitStatus]:
        process = await world.start("sh", "-c", script)
        await read_until(process, b"ready")
        process.send_signal("USR1")
        done = await finish(process)
        await process.close()
        process.send_signal("USR1")  # it has ended: nothing happens
        process.resize(1, 1)
        process.write_eof()
        return done.stdout, done.status

    assert world.do(scenario()) == (b"caught\n", ExitStatus(9))


def test_send_signal_unknown_name_is_a_usage_error(world: AgentWorld) -> None:
    async def scenario() -> None:
        process = await world.start("sleep", "60")
        try:
            process.send_signal("NONSENSE")
        finally:
            await process.close()

    with pytest.raises(BangerError) as caught:
        world.do(scenario())
    assert caught.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize(
    ("script", "heeds_the_hangup"),
    [
        ("echo ready; while :; do sleep 0.05; done", True),
        ("trap '' HUP; echo ready; while :; do sleep 0.05; done", False),
    ],
    ids=["obedient", "ignores-the-hangup"],
)
def test_close_ends_the_command(world: AgentWorld, script: str, heeds_the_hangup: bool, tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")

    async def scenario() -> float:
        process = await world.start("sh", "-c", script, marker)
        await read_until(process, b"ready")
        assert running(marker)
        begun = time.monotonic()
        await process.close()
        await process.close()
        return time.monotonic() - begun

    assert (world.do(scenario()) < HANGUP_GRACE_S) is heeds_the_hangup
    eventually(lambda: not running(marker), what="the command has ended")


def test_close_ends_a_command_that_its_own_output_has_stopped(world: AgentWorld, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()

    async def scenario() -> float:
        script = f'while :; do head -c 65536 /dev/zero; echo >>"{log}"; done'
        process = await world.start("sh", "-c", script)
        await settled(lambda: log.stat().st_size)
        begun = time.monotonic()
        await process.close()
        return time.monotonic() - begun

    assert world.do(scenario()) < HANGUP_GRACE_S
    eventually(lambda: not running(str(log)), what="the command has ended")


def test_close_on_a_terminal_hangs_up_what_runs_in_the_foreground(world: AgentWorld, tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")

    async def scenario() -> None:
        script = f"sh -c 'echo ready; while :; do sleep 0.05; done' {marker}; true"
        process = await world.start("sh", "-c", script, tty=TERMINAL)
        await read_until(process, b"ready")
        assert running(marker)
        await process.close()

    world.do(scenario())
    eventually(lambda: not running(marker), what="the foreground program has ended")


def test_processs_side_by_side_do_not_disturb_each_other(world: AgentWorld) -> None:
    async def scenario() -> list[bytes]:
        stuck = await world.start("cat", "/dev/zero")  # nobody reads it
        many = [world.exec_async("sh", "-c", f"cat; echo {n}", stdin=b"x" * 300_000) for n in range(8)]
        done = await asyncio.gather(*many)
        await stuck.close()
        return [one.stdout[300_000:] for one in done]

    assert world.do(scenario()) == [f"{n}\n".encode() for n in range(8)]


def test_open_process_caller_gone_meanwhile_leaves_no_command_behind(world: AgentWorld, tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")

    async def scenario() -> None:
        starting = world.start("sh", "-c", "while :; do sleep 0.05; done", marker)
        opening: asyncio.Task[GuestProcess] = asyncio.create_task(starting)
        await asyncio.sleep(0)  # it is on its way now
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await world.exec_async("true")  # by now the first command has been started, too

    world.do(scenario())
    eventually(lambda: not running(marker), what="the command has ended")


def test_exec_killed_by_any_signal_says_which(world: AgentWorld) -> None:
    assert world.exec("sh", "-c", "kill -BUS $$").status == ExitStatus(135, "BUS")


def test_exec_environment_and_directory_reach_the_guest(world: AgentWorld) -> None:
    done = world.exec("sh", "-c", 'printf "%s|%s" "$GREETING" "$PWD"', env=("GREETING=it's\n*",), workdir="/usr")
    assert done.stdout == b"it's\n*|/usr"


@pytest.mark.parametrize("size", [9_500, 131_000])
def test_exec_word_of_any_length_that_linux_takes_arrives(world: AgentWorld, size: int) -> None:
    text = ("it's a\nline " * size)[:size]
    done = world.exec("sh", "-c", 'cat; printf %s "$1"; exit 7', "sh", text, stdin=b"in:")
    assert (done.stdout, done.status) == (b"in:" + text.encode(), ExitStatus(7))


def test_exec_of_many_words_arrives_whole(world: AgentWorld) -> None:
    words = [f"{n:0100d}" for n in range(5000)]
    assert world.exec("printf", "%s", *words).stdout == "".join(words).encode()


def test_exec_that_cannot_begin_says_why_with_the_codes_of_a_shell(world: AgentWorld, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("no program")
    for argv, options, code, word in (
        (("nosuch",), {}, 127, b"nosuch"),
        ((str(script),), {}, 126, b"script"),
        (("true",), {"user": "nosuch"}, 125, b"nosuch"),
        (("true",), {"workdir": "/nosuch"}, 125, b"/nosuch"),
    ):
        done = world.exec(*argv, **options)  # type: ignore[arg-type]
        assert (done.status, done.stdout) == (ExitStatus(code), b"")
        assert done.stderr.startswith(b"banger: ")
        assert word in done.stderr


def test_exec_beside_many_bulk_streams_is_served(world: AgentWorld) -> None:
    async def scenario() -> float:
        bulk = [await world.start("cat", "/dev/zero") for _ in range(20)]

        async def drain(process: GuestProcess) -> None:
            async for _ in process.output():
                pass

        draining = [asyncio.create_task(drain(one)) for one in bulk]
        await world.exec_async("true")
        begun = time.monotonic()
        for _ in range(10):
            assert (await world.exec_async("echo", "here")).stdout == b"here\n"
        taken = time.monotonic() - begun
        for one in bulk:
            await one.close()
        for one in draining:
            one.cancel()
        await asyncio.gather(*draining, return_exceptions=True)
        return taken

    assert world.do(scenario()) < 10
