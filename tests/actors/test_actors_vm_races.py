"""Many clients at once on one VM: whatever the interleaving, it ends in a legal state and nothing leaks."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from hypothesis import settings

from banger.actors.messages import (
    Command,
    CreateVm,
    DeleteVm,
    KillVm,
    PauseVm,
    ReconcileHost,
    ReconcileVm,
    ResumeVm,
    StartVm,
    StopVm,
)
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.core.names import new_id, vmm_marker
from banger.core.wire.vm_spec import VmSpec
from banger.vmm import identity as processes
from tests.support.fake_capability import FakeCapability
from tests.support.fake_vmm import FakeFirecracker, FakeVmm
from tests.support.fakes import World

#: With each driver: 250 with the soak profile (3000 examples), 20 with the short one.
ROUNDS = max(20, settings().max_examples // 12)
CLIENTS = 6
EXPECTED = {ErrorKind.CONFLICT, ErrorKind.NOT_FOUND, ErrorKind.CANCELLED}


@pytest.fixture(params=[FakeVmm, FakeFirecracker])
def world(tmp_path: Path, request: pytest.FixtureRequest):
    place = tmp_path / "host"
    place.mkdir()
    tap = FakeCapability("tap", place)
    world = World(tmp_path / "home", request.param(), capabilities=(tap,))
    world.tap = tap  # type: ignore[attr-defined]
    world.guests.on_power_off = lambda vm: world.vmm.press_button(world.layout.vm_run_dir(vm.id))
    yield world
    world.stop()


def a_command(chance: random.Random, vm_id: str) -> Command:
    kinds = (StartVm, StartVm, KillVm, ReconcileVm, PauseVm, ResumeVm)
    kind = chance.choice((*kinds, StopVm, DeleteVm))
    if kind is StopVm:
        return StopVm(vm_id, "web", 5.0)
    if kind is DeleteVm:
        return DeleteVm(vm_id, "web", force=chance.random() < 0.5)
    return kind(vm_id, "web")


def client(world: World, chance: random.Random, vm_id: str, surprises: list[BaseException]) -> None:
    for _ in range(4):
        waiter = world.supervisor.submit(a_command(chance, vm_id))
        if chance.random() < 0.15:
            waiter.leave()
            continue
        try:
            waiter.wait()
        except BangerError as error:
            if error.kind not in EXPECTED:
                surprises.append(error)
        except BaseException as error:  # noqa: BLE001  # told to the test's own thread
            surprises.append(error)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_interleavings_end_in_a_legal_state_and_leak_nothing(world: World) -> None:
    for number in range(ROUNDS):
        vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine"), start=number % 2 == 0))
        surprises: list[BaseException] = []
        threads = [
            threading.Thread(target=client, args=(world, random.Random(number * 100 + index), vm.id, surprises))
            for index in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        world.do(ReconcileHost())  # after everything that was queued
        assert surprises == [], number
        check(world, vm.id, number)
        if world.store.vms.get(vm.id) is not None:
            world.do(DeleteVm(vm.id, "web", force=True))
        assert world.leftovers() == []
        assert world.ledger.all() == []
        assert world.tap.host_objects() == []  # type: ignore[attr-defined]


def check(world: World, vm_id: str, number: int) -> None:
    row = world.store.vms.get(vm_id)
    process = processes.find(vmm_marker(vm_id))
    taps = [found.vm_id for found in world.tap.host_objects()]  # type: ignore[attr-defined]
    if row is None or row.state is VmState.STOPPED:
        assert process is None, number
        assert taps == [], number
    else:
        assert row.state in (VmState.RUNNING, VmState.PAUSED), (number, row.state, row.reason)
        assert process is not None, number
        assert process.pid == row.pid, number
        assert taps == [vm_id], number
