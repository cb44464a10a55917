"""Files of a guest, and what actors ask of guests, by the real agent."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from banger.agent.endpoint import Endpoint
from banger.agent.link import AgentLink
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, ExitStatus
from banger.core.ports import RunningGuest
from tests.support.agent_world import AgentWorld, agent_world, finish, needs_agent, operation, read_until

pytest_plugins = ("tests.support.agent_fixtures",)

pytestmark = needs_agent


# -- copies ------------------------------------------------------------------------------------------------


def test_files_are_described_put_and_got(world: AgentWorld, tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a b")
    target = tmp_path / "target"
    target.mkdir()

    async def scenario() -> tuple[object, ...]:
        files = world.guest.files
        kinds = [await files.stat(str(tmp_path / name)) for name in ("a b", "link", "none", "")]
        packed = await finish(await files.get(str(tmp_path / "a b")))
        put = await finish(await files.put(str(target)), packed.stdout)
        lost = await finish(await files.get(str(tmp_path / "none")))
        return kinds, put.status, lost.status, lost.stderr

    kinds, put, lost, words = world.do(scenario())
    assert [one.kind for one in kinds] == ["file", "file", "missing", "directory"]  # type: ignore[attr-defined]
    assert [one.is_link for one in kinds] == [False, True, False, False]  # type: ignore[attr-defined]
    assert kinds[1].real_path == str(tmp_path / "a b")  # type: ignore[index]
    assert (put, (target / "a b").read_bytes()) == (ExitStatus(0), b"content")
    assert lost == ExitStatus(1)
    assert words


# -- what actors ask ---------------------------------------------------------------------------------------


def test_connect_is_kept_for_everything_after_it(world: AgentWorld) -> None:
    world.guests.connect(world.vm, operation(), 10)
    world.guests.connect(world.vm, operation(), 10)
    for _ in range(3):
        assert world.exec("true").status == ExitStatus(0)
    assert world.agent.greeted == 1


@pytest.mark.parametrize("knows", [True, False], ids=["agent", "an older agent"])
def test_command_without_input_asks_for_the_null_device_if_the_agent_knows_it(
    world: AgentWorld, monkeypatch: pytest.MonkeyPatch, *, knows: bool
) -> None:
    if not knows:
        monkeypatch.setattr("banger.agent.session.Feature", SimpleNamespace(NO_INPUT=0))
    said = world.exec("readlink", "/proc/self/fd/0", has_input=False).stdout
    assert (said == b"/dev/null\n") is knows


def test_served_counts_what_runs_in_a_guest(world: AgentWorld) -> None:
    async def scenario() -> list[int]:
        counts = [world.guests.served(world.vm.id)]
        process = await world.start("sleep", "60")
        counts.append(world.guests.served(world.vm.id))
        await process.close()
        counts.append(world.guests.served(world.vm.id))
        return counts

    assert world.do(scenario()) == [0, 1, 0]


def test_guest_is_asked_from_a_thread_and_its_refusal_raised_there(world: AgentWorld) -> None:
    async def hostname(guest: RunningGuest) -> str:
        return (await guest.machine.facts()).hostname

    async def entry(guest: RunningGuest) -> object:
        return await guest.files.entry("/nowhere/at/all")

    assert world.guests.ask(world.vm, hostname, 30) == os.uname().nodename
    with pytest.raises(BangerError) as caught:
        world.guests.ask(world.vm, entry, 30)
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize("ends", ["its time", "its token"])
def test_guest_that_is_asked_for_too_much_is_left_and_goes_on(world: AgentWorld, ends: str) -> None:
    token, ended = CancelToken(), threading.Event()

    async def forever(guest: RunningGuest) -> None:
        try:
            process = await guest.exec(ExecRequest(("sleep", "600")))
            if ends == "its token":
                token.cancel("nobody wants it")
            try:
                await process.wait()
            finally:
                await process.close()
        finally:
            ended.set()

    with pytest.raises(BangerError) as caught:
        world.guests.ask(world.vm, forever, 0.5 if ends == "its time" else 60, token)
    assert caught.value.kind is (ErrorKind.TIMEOUT if ends == "its time" else ErrorKind.CANCELLED)
    assert ended.wait(30)
    assert world.exec("true").status == ExitStatus(0)


def test_connect_cancelled_leaves_at_once(world: AgentWorld) -> None:
    world.agent.path.unlink()
    asked = operation()
    outcome: list[BangerError] = []

    def connect() -> None:
        try:
            world.guests.connect(world.vm, asked, 60)
        except BangerError as error:
            outcome.append(error)

    connecting = threading.Thread(target=connect)
    connecting.start()
    begun = time.monotonic()
    asked.cancel("enough")
    connecting.join(5)
    assert time.monotonic() - begun < 3
    assert (outcome[0].kind, outcome[0].message) == (ErrorKind.CANCELLED, "enough")


def test_disconnect_ends_what_waits_and_the_next_wish_connects_anew(world: AgentWorld) -> None:
    async def scenario() -> BangerError:
        process = await world.start("sh", "-c", "echo begun; sleep 60")
        await read_until(process, b"begun")
        world.guests.disconnect(world.vm.id)
        world.guests.disconnect("never-seen")
        with pytest.raises(BangerError) as caught:
            await process.wait()
        return caught.value

    error = world.do(scenario())
    assert (error.kind, error.message) == (ErrorKind.UNKNOWN_OUTCOME, "lost the connection to the guest")
    assert world.exec("true").status == ExitStatus(0)


def test_guest_that_is_gone_is_unavailable_and_says_what_to_type(tmp_path: Path) -> None:
    async def ask() -> None:
        await AgentLink("0" * 12, Endpoint(tmp_path / "none")).session()

    with pytest.raises(BangerError) as caught:
        asyncio.run(ask())
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.hint == f"banger vm restart {'0' * 12}"


def test_stopped_loop_is_answered_as_cancelled(tmp_path: Path) -> None:
    with agent_world(tmp_path) as made:
        pass
    with pytest.raises(BangerError) as caught:
        made.guests.power_off(made.vm, 5)
    assert caught.value.kind is ErrorKind.CANCELLED
    made.guests.disconnect(made.vm.id)
