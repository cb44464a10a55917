"""Requests that the API's own description calls possible, and such that it does not: none is an error of the server.

A dozen seconds by default; ``FUZZ_SECONDS`` gives it more (``make fuzz``). Every answer is held to the description, too.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from banger.actors.messages import DeleteSnapshot, DeleteVm, PullImage, PullKernel
from banger.api.app import ROUTES
from banger.core.errors import BangerError
from banger.core.exec import ExitStatus
from banger.core.ports import GuestPath, ImageRequest, KernelRequest
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.owned_vms import create
from tests.support.saved_vms import copied_guests
from tests.support.scripted_guest import ScriptedGuest, ScriptedProcess
from tests.support.served import Served
from tests.support.unix_http import unix_session
from tests.support.waiting import eventually

SECONDS = float(os.environ.get("FUZZ_SECONDS", "12"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    world = World(tmp_path / "home", FakeVmm())
    _furnish(world)
    guest = ScriptedGuest(_shout, GuestPath("file", is_link=True, real_path="/real"))
    world.guests.sessions = lambda _: guest
    copied_guests(world)
    served = Served(world)
    yield served
    _delete_vms(world)
    served.close()
    world.stop()


def _furnish(world: World) -> None:
    """Something of everything, so that requests mean something."""
    world.do(PullImage("alpine", ImageRequest("alpine")))
    world.do(PullKernel("lab", KernelRequest(source="lab")))
    create(world, "idle", stop_timeout_s=0.1)
    create(world, "busy", start=True, stop_timeout_s=0.1)


def _delete_vms(world: World) -> None:
    """And snapshots, which would keep images."""
    doomed = [DeleteVm(vm.id, vm.name, force=True) for vm in world.store.vms.all()]
    for command in (*doomed, *(DeleteSnapshot(one.name, one.id) for one in world.store.snapshots.all())):
        with suppress(BangerError):  # an operation that a request began may be before us
            world.do(command)


@pytest.mark.slow
def test_no_request_is_an_error_of_the_server(served: Served, tmp_path: Path) -> None:
    from tests.support import api_fuzzing  # imported here, since that takes seconds

    operations = api_fuzzing.operations()
    assert len(operations) == len(ROUTES)
    first, end = time.time_ns() if "FUZZ_SECONDS" in os.environ else 0, time.monotonic() + SECONDS
    print(f"seeds from {first}")
    asked = 0
    with unix_session(served.world.layout.socket) as session:
        for number in itertools.count(first):
            for operation in operations:
                if time.monotonic() > end and number > first:
                    print(f"{asked} requests")
                    return
                asked += api_fuzzing.ask(operation, session, _names(served.world), tmp_path, number)
            _delete_vms(served.world)
            eventually(lambda: not served.world.operations.active(), what="what was begun has ended")
            _delete_vms(served.world)
            _furnish(served.world)


def _names(world: World) -> list[str]:
    return [row.name for store in (world.store.vms, world.store.images) for row in store.all()] + ["lab"]


async def _shout(process: ScriptedProcess) -> ExitStatus:
    """Gives its input back in capitals."""
    while (data := await process.inputs.get()) is not None:
        process.say(data.upper())
    return ExitStatus(3)
