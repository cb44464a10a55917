"""The kernel's modules as a disk of its VMs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.actors.messages import CreateVm, DeleteVm, StartVm
from banger.core.models import Vm
from banger.core.names import new_id
from banger.core.ports import Drive
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World


@pytest.fixture
def vmm() -> FakeVmm:
    return FakeVmm()


@pytest.fixture
def world(tmp_path: Path, vmm: FakeVmm) -> Iterator[World]:
    world = World(tmp_path, vmm)
    yield world
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    world.stop()


@pytest.mark.parametrize("has_modules", [True, False])
def test_vm_gets_its_kernels_modules_as_the_last_disk_if_there_are_any(
    world: World, vmm: FakeVmm, has_modules: bool
) -> None:
    vm: Vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine"), start=False))
    modules = world.layout.kernel_dir(vm.kernel_id) / "modules.ext4"
    if has_modules:
        modules.touch()
    world.do(StartVm(vm.id, vm.name))
    (config,) = vmm.launched
    drives = [device for device in config.devices if isinstance(device, Drive)]
    assert (drives[-1] == Drive(modules, "modules", read_only=True)) is has_modules
    assert len({drive.label for drive in drives}) == len(drives)
