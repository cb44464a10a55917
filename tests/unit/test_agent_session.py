"""A session with a guest's agent, over a socket whose other end a test plays: what is asked, what comes, what must not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from banger.agent import link as link_module
from banger.agent.endpoint import Endpoint
from banger.agent.guest import AgentGuest
from banger.agent.link import AgentLink
from banger.agent.messages import Exit, Result, Status
from banger.agent.wire import Flag, Kind
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, ExitStatus, Terminal
from tests.support.scripted_agent import ScriptedAgent, agent_at, collected, play, run_true, served

# -- commands ----------------------------------------------------------------------------------------------


def test_exec_carries_the_wish_both_outputs_and_the_exit_code(tmp_path: Path) -> None:
    opened: list[bytes] = []

    async def script(agent: ScriptedAgent) -> None:
        await agent.meet()
        frame = await agent.expect(Kind.OPEN)
        opened.append(frame.payload)
        agent.send(frame.stream, Kind.STARTED, b"\x07\0\0\0")
        agent.say(frame.stream, b"out")
        agent.say(frame.stream, b"err", Flag.ERR)
        agent.finish(frame.stream, 42)

    async def work(guest: AgentGuest) -> object:
        wish = ExecRequest(("cat", "-n"), ("A=b",), "app", "/srv", Terminal(24, 80, "vt100"))
        return await collected(await guest.exec(wish))

    assert play(tmp_path, script, work) == (b"out", b"err", ExitStatus(42))
    for word in (b"cat\0", b"-n\0", b"A=b\0", b"TERM=vt100\0", b"app\0", b"/srv\0"):
        assert word in opened[0]


def test_exec_without_input_says_so_in_one_breath(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.meet()
        stream = (await agent.expect(Kind.OPEN)).stream
        ended = await agent.expect(Kind.DATA)  # and nothing was said meanwhile that it might wait for
        assert ended.flags == Flag.END
        agent.send(stream, Kind.STARTED)
        agent.finish(stream)

    async def work(guest: AgentGuest) -> object:
        process = await guest.exec(ExecRequest(("cat",), has_input=False))
        process.write_eof()
        return await process.write_stdin(b"x"), await process.wait()

    assert play(tmp_path, script, work) == (False, ExitStatus(0))


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (Exit(killed=True, code=15), ExitStatus(143, "TERM")), (Exit(killed=True, code=7), ExitStatus(135, "BUS")),
        (Exit(killed=False, code=255), ExitStatus(255)),
    ],
)  # fmt: skip
def test_exec_tells_what_killed_a_command(tmp_path: Path, ended: Exit, status: ExitStatus) -> None:
    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        agent.send(stream, Kind.RESULT, Result(0, fields=ended.encode()).encode())

    assert play(tmp_path, script, run_true) == (b"", b"", status)


@pytest.mark.parametrize(
    ("result", "code"),
    [(Status.NOT_FOUND, 127), (Status.NOT_EXECUTABLE, 126), (Status.NO_USER, 125), (Status.NO_DIRECTORY, 125)],
)
def test_exec_that_cannot_begin_ends_as_it_would_in_a_shell(tmp_path: Path, result: Status, code: int) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.meet()
        stream = (await agent.expect(Kind.OPEN)).stream
        agent.send(stream, Kind.RESULT, Result(result, message="so it is").encode())

    assert play(tmp_path, script, run_true) == (b"", b"banger: so it is\n", ExitStatus(code))


def test_input_waits_for_credit_and_ends_when_nobody_reads_it(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        taken = 0
        while taken < 65536:
            taken += len((await agent.expect(Kind.DATA)).payload)
        assert taken == 65536, "all that there was credit for"
        agent.send(stream, Kind.CREDIT, (100).to_bytes(4, "little"))
        assert len((await agent.expect(Kind.DATA)).payload) == 100
        agent.send(stream, Kind.STOP)
        assert (await agent.expect(Kind.DATA)).flags == Flag.END
        agent.finish(stream)

    async def work(guest: AgentGuest) -> object:
        process = await guest.exec(ExecRequest(("head",)))
        wanted = await process.write_stdin(bytes(1 << 20))
        again = await process.write_stdin(b"more")
        process.write_eof()
        return wanted, again, await collected(process)

    assert play(tmp_path, script, work) == (False, False, (b"", b"", ExitStatus(0)))


def test_output_gets_new_credit_as_it_is_read_and_not_before(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        for _ in range(8):
            agent.say(stream, bytes(32000))
        while (frame := await agent.expect(Kind.CREDIT)).stream != stream:
            assert frame.stream == 0
        agent.finish(stream)

    out, _, status = play(tmp_path, script, run_true)  # type: ignore[misc]
    assert (len(out), status) == (8 * 32000, ExitStatus(0))


def test_close_of_a_command_that_runs_hangs_up_and_waits_for_its_end(tmp_path: Path) -> None:
    cancelled = []

    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        cancelled.append((await agent.expect(Kind.CANCEL)).stream)
        agent.say(stream, b"last words")
        agent.send(stream, Kind.RESULT, Result(0, fields=Exit(killed=True, code=1, cause=2).encode()).encode())

    async def work(guest: AgentGuest) -> object:
        process = await guest.exec(ExecRequest(("sleep",)))
        await process.close()
        await process.close()
        return await process.wait()

    assert play(tmp_path, script, work) == ExitStatus(129, "HUP")
    assert cancelled == [1]


def test_signals_and_sizes_are_passed_on(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def script(agent: ScriptedAgent) -> None:
        stream = await served(agent)
        heard.append((await agent.expect(Kind.SIGNAL)).payload)
        heard.append((await agent.expect(Kind.RESIZE)).payload)
        agent.finish(stream)

    async def work(guest: AgentGuest) -> None:
        process = await guest.exec(ExecRequest(("sleep",)))
        process.send_signal("USR1")
        process.resize(50, 132)
        await process.wait()
        process.send_signal("TERM")
        with pytest.raises(BangerError):
            process.send_signal("NONSENSE")

    play(tmp_path, script, work)
    assert heard == [b"\0\x0a", b"\x32\0\x84\0"]


# -- guests that are slow, lost, or of another kind --------------------------------------------------------


def test_guest_that_is_lost_meanwhile_is_an_unknown_outcome_and_the_next_command_greets_anew(tmp_path: Path) -> None:
    meetings = []

    async def script(agent: ScriptedAgent) -> None:
        meetings.append(agent)
        stream = await served(agent)
        if len(meetings) > 1:
            agent.finish(stream)

    async def work(guest: AgentGuest) -> object:
        with pytest.raises(BangerError) as caught:
            await run_true(guest)
        assert caught.value.kind is ErrorKind.UNKNOWN_OUTCOME
        assert caught.value.hint == "banger vm why vm0"
        return await run_true(guest)

    assert play(tmp_path, script, work) == (b"", b"", ExitStatus(0))


def test_guest_whose_agent_speaks_no_protocol_of_ours_is_unavailable_and_told(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.meet(protocol=0, tag=0, lowest=7, highest=9, reason=3)
        await agent.gone()

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, run_true)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "7 to 9" in caught.value.cause


@pytest.mark.parametrize("mute", ["greeting", "request"])
def test_guest_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mute: str) -> None:
    monkeypatch.setattr(link_module, "START_TIMEOUT_S", 0.1)

    async def script(agent: ScriptedAgent) -> None:
        if mute == "request":
            await agent.meet()
        await agent.gone()

    async def work(guest: AgentGuest) -> None:
        if mute == "greeting":
            await guest.link.session(0.1)
        await run_true(guest)

    with pytest.raises(BangerError) as caught:
        play(tmp_path, script, work)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "no answer within 0.1 s" in caught.value.cause


def test_guest_that_says_nothing_is_given_up_by_all_callers_at_once(tmp_path: Path) -> None:
    meetings = []

    async def script(agent: ScriptedAgent) -> None:
        meetings.append(agent)
        await agent.gone()

    async def work(guest: AgentGuest) -> object:
        return await asyncio.gather(*(guest.link.session(0.2) for _ in range(5)), return_exceptions=True)

    begun = time.monotonic()
    failures = play(tmp_path, script, work)
    assert [getattr(one, "kind", one) for one in failures] == [ErrorKind.UNAVAILABLE] * 5  # type: ignore[attr-defined]
    assert (len(meetings), time.monotonic() - begun < 3) == (1, True)


def test_guest_that_is_not_there_yet_is_waited_for_as_long_as_was_said(tmp_path: Path) -> None:
    async def nobody() -> BangerError:
        with pytest.raises(BangerError) as caught:
            await AgentLink("vm0", Endpoint(tmp_path / "none")).connect(0.3)
        return caught.value

    assert asyncio.run(nobody()).kind is ErrorKind.TIMEOUT

    async def late() -> None:
        path = tmp_path / "ga.sock"
        link = AgentLink("vm0", Endpoint(path))
        connecting = asyncio.create_task(link.connect(10))
        await asyncio.sleep(0.15)

        async def script(agent: ScriptedAgent) -> None:
            await agent.meet()
            await agent.gone()

        async with agent_at(path, script):
            await connecting
            link.drop()

    asyncio.run(late())


def test_greeting_that_gets_lost_is_said_again_and_only_the_last_answer_counts(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        await agent.hear()  # and nothing comes of it
        late = agent.hello
        await agent.hear()
        agent.write(agent.welcome._replace(nonce=late.nonce, tag=0x05050505).encode())
        agent.write(agent.welcome._replace(nonce=agent.hello.nonce).encode())
        stream = (await agent.expect(Kind.OPEN)).stream
        agent.send(stream, Kind.STARTED)
        agent.finish(stream, 6)

    assert play(tmp_path, script, run_true) == (b"", b"", ExitStatus(6))


def test_rest_of_a_former_session_is_passed_over(tmp_path: Path) -> None:
    async def script(agent: ScriptedAgent) -> None:
        agent.write(bytes(range(256)) * 100)
        agent.write(agent.welcome.encode()[:40])
        stream = await served(agent)
        agent.finish(stream, 5)

    assert play(tmp_path, script, run_true) == (b"", b"", ExitStatus(5))


@pytest.mark.parametrize("path", ["etc/passwd", "/etc\0/passwd", ""])
def test_path_that_no_system_call_takes_is_refused_before_anybody_is_asked(tmp_path: Path, path: str) -> None:
    guest = AgentGuest("vm0", AgentLink("vm0", Endpoint(tmp_path / "nobody")))
    for ask in (guest.files.stat, guest.files.get, guest.files.put):
        with pytest.raises(BangerError) as caught:
            asyncio.run(ask(path))
        assert caught.value.kind is ErrorKind.USAGE
