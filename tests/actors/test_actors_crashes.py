"""Crash at every named point of every operation, restart, reconcile: nothing leaks, nothing is lost."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from banger.actors.messages import DeleteVm, Reconcile
from banger.core import crashpoints
from banger.core.models import ProcessIdentity, VmState
from banger.core.names import vmm_marker
from banger.vmm import identity as processes
from tests.support.crash_zygote import VM_ID, Zygote, step
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World

SCRIPTS = {
    "pull": ["pull"],
    "pull of a moved tag": ["pull", "move tag", "pull"],
    "delete image": ["pull", "delete image"],
    "register": ["register"],
    "promote": ["register", "promote"],
    "tag": ["pull", "tag"],
    "commit": ["create", "commit"],
    "pull kernel": ["pull kernel"],
    "delete kernel": ["pull kernel", "delete kernel"],
    "create": ["create"],
    "start": ["create", "start"],
    "stop": ["create", "start", "stop"],
    "pause": ["create", "start", "pause"],
    "resume": ["create", "start", "pause", "resume"],
    "grow": ["create", "grow"],
    "recover a lost row": ["create", "start", "lose row", "reconcile"],
    "kill": ["create", "start", "kill"],
    "delete": ["create", "delete"],
    "delete while running": ["create", "start", "delete"],
}


@pytest.fixture(scope="module")
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture
def homes():
    """In memory where there is such a file system: a hundred stores that sync for nobody take a minute on a disk."""
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="banger-crash-", dir=root) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def points_of(zygote):
    """Script name to the points that its last step comes by when nothing crashes."""
    with tempfile.TemporaryDirectory(prefix="banger-crash-") as directory:
        found = {}
        for number, (name, script) in enumerate(SCRIPTS.items()):
            home = Path(directory, str(number))
            status, found[name] = zygote.run(home, script)
            assert status == 0, name
            _end_machines(home)
        return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_crash_at_every_point_leaves_nothing_that_a_restart_does_not_mend(name, zygote, homes, points_of):
    for number, point in enumerate(points_of[name]):
        home = homes / str(number)

        status, _ = zygote.run(home, SCRIPTS[name], point)

        assert status == crashpoints.EXIT_CODE, point
        _check_mended(home, SCRIPTS[name], point)


def _check_mended(home, script, point):
    world = World(home, FakeVmm())
    try:
        world.do(Reconcile(at_start=True))
        _check_invariants(world, point)
        again = world.do(Reconcile())
        assert (again.stopped, again.removed, again.failed) == ([], [], []), point
        step(world, script[-1])  # the same command again succeeds
        _check_invariants(world, point)
    finally:
        for vm in world.store.vms.all():
            world.do(DeleteVm(vm.id, vm.name, force=True))
        world.stop()


def _check_invariants(world, point):
    assert world.leftovers() == [], point
    for image in world.store.images.all():
        assert world.layout.image_rootfs(image).read_text() == image.digest, point
        assert image.has_seed == world.layout.image_seed(image).exists(), point
    for kernel in world.store.kernels.all():
        assert (world.layout.kernel_dir(kernel.id) / "kernel.json").exists(), point
    process = processes.find(vmm_marker(VM_ID))
    vm = world.store.vms.get(VM_ID)
    if vm is not None and vm.state in (VmState.RUNNING, VmState.PAUSED):
        (handle,) = world.ledger.of(VM_ID).of("process")
        assert processes.is_same(ProcessIdentity(**handle.detail)), point
    else:
        assert process is None, f"{point}: a machine was lost"
        assert world.ledger.all() == [], point


def _end_machines(home):
    world = World(home, FakeVmm())
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    world.stop()


def test_crash_points_are_all_reached_by_some_script(points_of):
    """A point that no script comes by proves nothing: either a script is missing or the point is dead."""
    # The tap network dies for real, with a kernel under it: tests/integration/test_network_tap_life.py.
    points = {point for point in crashpoints.all_points() if not point.startswith("tap.")}
    assert points == {point for points in points_of.values() for point in points}


def test_crash_point_names_must_be_literals(tmp_path):
    (tmp_path / "bad.py").write_text("crashpoint(name)\n")
    with pytest.raises(TypeError, match=r"bad\.py"):
        crashpoints.all_points(tmp_path)
