"""What the tests of owners share: a world whose machines are small processes."""

from __future__ import annotations

import pytest

from banger.actors.messages import DeleteVm
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.in_memory import tmp_path

__all__ = ["tmp_path"]  # the owners sync whatever they write


@pytest.fixture
def vmm():
    return FakeVmm()


@pytest.fixture
def vm_world(tmp_path, vmm):
    world = World(tmp_path, vmm)
    world.guests.on_power_off = lambda vm: vmm.press_button(world.layout.vm_run_dir(vm.id))
    yield world
    world.images.gate.open()
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    assert world.leftovers() == []
    world.stop()
