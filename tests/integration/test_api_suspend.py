"""Suspending and waking over real owners and fake machines, as callers of the HTTP surface see it."""

from __future__ import annotations

import threading

import pytest

from banger import Banger
from banger.client import path_of
from banger.client.conversation import converse
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExitStatus
from banger.core.models import VmState
from banger.core.ports import GuestPath
from tests.support.fakes import World
from tests.support.saved_vms import copied_guests, read, write
from tests.support.scripted_guest import ScriptedGuest, ScriptedProcess
from tests.support.served import Served
from tests.support.waiting import eventually

EXEC = {"argv": ["true"], "env": [], "user": "", "workdir": "", "tty": None, "timeout_s": None}


async def answer(process: ScriptedProcess) -> ExitStatus:
    process.say(b"here")
    return ExitStatus(0)


@pytest.fixture
def served(tmp_path):
    world = World(tmp_path)
    guest = ScriptedGuest(answer, GuestPath("file", is_link=False, real_path="/real"))
    world.guests.sessions = lambda _: guest
    copied_guests(world)
    served = Served(world)
    yield served
    for vm in world.store.vms.all():
        served.client.long("DELETE", path_of("vms", vm.id), {"force": True})
    served.close()
    world.stop()


@pytest.fixture
def web(served, tmp_path):
    """A suspended machine with something in its memory."""
    machine = Banger(tmp_path, start_daemon=False).machine("alpine", name="web")
    write(served.world, machine.info, "first")
    return machine.suspend()


def test_suspended_vm_is_shown_as_one_with_its_bytes(served, web):
    assert web.info.state is VmState.SUSPENDED
    shown = served.client.get(path_of("vms", "web"))
    usage = served.client.get("/v1/system/df")
    assert (shown["state"], shown["suspended_bytes"] > 0) == ("suspended", True)
    assert usage["suspended_bytes"] == shown["suspended_bytes"]
    assert served.client.get("/v1/vms")[0]["suspended_bytes"] == shown["suspended_bytes"]
    assert "wakes by itself" in served.client.get(path_of("vms", "web", "why"))["next"]


def test_commands_and_files_wake_it_and_figures_do_not(served, web):
    with pytest.raises(BangerError) as caught:
        served.client.get(path_of("vms", "web", "facts"))
    assert (caught.value.kind, caught.value.message) == (ErrorKind.CONFLICT, 'VM "web" is suspended, not running')
    assert served.client.get(path_of("vms", "web", "access"))["user"] == "root"
    assert web.refresh().state is VmState.SUSPENDED

    assert converse(served.client.frames(path_of("vms", "web", "exec"), EXEC)).stdout == b"here"
    assert (web.refresh().state, read(served.world, web.info)) == (VmState.RUNNING, ("first", "first"))

    web.suspend()
    assert served.client.get(path_of("vms", "web", "files", "stat"), {"path": "/etc"})["kind"] == "file"
    assert web.refresh().state is VmState.RUNNING


def test_two_commands_at_once_wake_it_once(served, web):
    launches, answers = len(served.world.vmm.launched), []

    def run():
        answers.append(converse(served.client.frames(path_of("vms", "web", "exec"), EXEC)).stdout)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [b"here", b"here"]
    assert len(served.world.vmm.launched) == launches + 1


def test_command_that_comes_while_it_is_being_suspended_waits_and_wakes_it(served, web):
    web.start()
    answers, operations = [], served.world.operations
    caller = threading.Thread(
        target=lambda: answers.append(converse(served.client.frames(path_of("vms", "web", "exec"), EXEC)).stdout)
    )

    def call():
        caller.start()
        eventually(lambda: any(one.kind == "vm.wake" for one in operations.active()), what="it asks for the wake")

    served.world.vmm.while_saving = call
    assert web.suspend().info.state is VmState.SUSPENDED
    caller.join(20)
    assert answers == [b"here"]
    assert (web.refresh().state, read(served.world, web.info)[0]) == (VmState.RUNNING, "first")


def test_cold_start_is_a_wish_of_its_own(served, web):
    web.start(cold=True)
    assert read(served.world, web.info)[0] != "first"
