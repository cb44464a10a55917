"""Crash at every named point of every operation, restart, reconcile: nothing leaks, nothing is lost."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from random import Random

import pytest

from banger.actors import suspended_files
from banger.actors.inventory import overview
from banger.actors.messages import DeleteTemplate, DeleteVm, ReconcileHost
from banger.actors.vm_machines import machine_of
from banger.core import crashpoints
from banger.core.models import ProcessIdentity, VmState
from banger.core.names import saver_marker, vmm_marker
from banger.core.origin import Origin
from banger.core.ports import Health
from banger.vmm import identity as processes
from banger.vmm.firecracker.installed import PROGRAMS, RECORD, installed
from tests.support import in_memory, origins
from tests.support.crash_zygote import COPY_IDS, VM_ID, Zygote, step, world_at
from tests.support.fake_vmm import FRESH_MEMORY
from tests.support.faulty_registry import faulty_registry
from tests.support.host_drivers import FIRECRACKER, NAMES, crash_world
from tests.support.saved_vms import delete_snapshot
from tests.support.soak import IS_SOAK

#: Hundreds of daemons live and die.
pytestmark = pytest.mark.slow

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
    "install driver": ["install driver"],
    "install driver again over a damaged one": ["install driver", "damage driver", "install driver"],
    "remove driver": ["install driver", "remove driver"],
    "create": ["create"],
    "start": ["create", "start"],
    "start on a KVM that breaks": ["create", "break kvm", "start"],
    "start of a guest that panics": ["create", "break guest", "try to start"],
    "stop": ["create", "start", "stop"],
    "restart": ["create", "start", "restart"],
    "reboot": ["create", "start", "reboot"],
    "pause": ["create", "start", "pause"],
    "resume": ["create", "start", "pause", "resume"],
    "grow": ["create", "grow"],
    "suspend": ["create", "start", "suspend"],
    "suspend a paused VM": ["create", "start", "pause", "suspend"],
    "start of a suspended VM": ["create", "start", "suspend", "start"],
    "cold start of a suspended VM": ["create", "start", "suspend", "start cold"],
    "stop of a suspended VM": ["create", "start", "suspend", "stop"],
    "delete of a suspended VM": ["create", "start", "suspend", "delete"],
    "recover a lost row": ["create", "start", "lose row", "reconcile"],
    "kill": ["create", "start", "kill"],
    "delete": ["create", "delete"],
    "delete while running": ["create", "start", "delete"],
    "snapshot": ["create", "start", "snapshot"],
    "snapshot and stop": ["create", "start", "snapshot and stop"],
    "snapshot of a stopped VM": ["create", "snapshot"],
    "restore": ["create", "start", "snapshot", "restore"],
    "restore of a stopped VM": ["create", "snapshot", "restore"],
    "fork": ["create", "start", "fork"],
    "fork of a snapshot": ["create", "start", "snapshot", "fork snapshot"],
    "import snapshot": ["create", "start", "snapshot", "export snapshot", "import snapshot"],
    "checkpoint": ["keep one checkpoint", "create", "start", "checkpoint", "checkpoint"],
    "rewind": ["create", "start", "snapshot", "write", "rewind"],
    "rewind of a stopped VM": ["create", "snapshot", "write", "rewind"],
    "rewind of a suspended VM": ["create", "start", "snapshot", "suspend", "rewind"],
    "rewind of a running VM to a disk": ["create", "snapshot", "start", "write", "rewind"],
    "rewind that fails": ["create", "start", "snapshot", "kill", "write", "try to rewind"],
    "delete snapshot": ["create", "snapshot", "delete snapshot"],
    "make template": ["create", "start", "make template"],
    "start from a template": ["create", "start", "make template", "start another"],
    "start of a created VM from a template": ["create", "start", "make template", "create another", "start another"],
    "start from a template that does not do": ["create", "start", "make template", "break template", "start another"],
    "delete template": ["create", "start", "make template", "delete template"],
    "recover a lost snapshot": ["create", "snapshot", "lose snapshot", "reconcile"],
}

#: The same with the other driver's machines, which end in another way.
FIRECRACKER_SCRIPTS = {
    f"firecracker: {name}": SCRIPTS[name]
    for name in (
        *("start", "start of a guest that panics", "stop", "restart", "reboot", "pause", "resume", "kill"),
        *("recover a lost row", "delete while running", "snapshot", "restore", "fork"),
    )
} | {"firecracker: power off": ["create", "start", "power off"]}

#: The same over the real sources and a registry, whose address is put in.
REAL_SCRIPTS = {
    "registry: pull": ["pull={host}/test/app:1"],
    "registry: pull of a bundle": ["pull=bundle:{host}/test/bundle:1"],
    "registry: pull of a bundle behind a plain reference": ["pull={host}/test/bundle:1"],
    "registry: delete of a bundle": ["pull=bundle:{host}/test/bundle:1", "delete image=bundle:{host}/test/bundle:1"],
    "registry: pull kernel": ["pull kernel=oci:{host}/test/kernel:1"],
    "registry: delete kernel": ["pull kernel=oci:{host}/test/kernel:1", "delete kernel=oci:{host}/test/kernel:1"],
}
#: The way of one before it, entered by another door.
LONG = (
    ()
    if IS_SOAK
    else (
        "registry: pull of a bundle behind a plain reference",
        "install driver again over a damaged one",
        "rewind of a suspended VM",
        "rewind of a running VM to a disk",
        "start of a created VM from a template",
    )
)
ALL = [name for name in (*SCRIPTS, *FIRECRACKER_SCRIPTS, *REAL_SCRIPTS) if name not in LONG]


def home_for(root, name, number):
    """The directory of a world with the machines that a script wants."""
    return root / f"{number}{FIRECRACKER if name in FIRECRACKER_SCRIPTS else ''}"


@pytest.fixture(scope="module")
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def host():
    """Where a registry is that has one of everything."""
    with faulty_registry() as registry, tempfile.TemporaryDirectory(prefix="banger-crash-") as scratch:
        origins.serve_all(registry, Path(scratch))
        yield registry.host


@pytest.fixture(scope="module")
def scripts(host):
    real = {name: [command.format(host=host) for command in script] for name, script in REAL_SCRIPTS.items()}
    return SCRIPTS | FIRECRACKER_SCRIPTS | real


@pytest.fixture(scope="module")
def points_of(zygote, scripts):
    """Script name to the points that its last step comes by when nothing crashes."""
    with tempfile.TemporaryDirectory(prefix="points-", dir=in_memory.place()) as directory:
        found = {}
        for number, (name, script) in enumerate(scripts.items()):
            home = home_for(Path(directory), name, number)
            status, found[name] = zygote.run(home, script, real=name in REAL_SCRIPTS)
            assert status == 0, name
            _end_machines(home)
        return found


#: How many of the scripts of one kind that come by a point crash there, unless there is time for all.
WAYS = 2


@pytest.fixture(scope="module")
def crashes(points_of, request):
    """Script name to the points at which it crashes: many come by the same ones, and each commit picks others."""
    if IS_SOAK:
        return points_of
    found = {name: [] for name in points_of}
    for kind in (SCRIPTS, FIRECRACKER_SCRIPTS, REAL_SCRIPTS):
        names = [name for name in ALL if name in kind]
        for point in sorted({point for name in names for point in points_of[name]}):
            ways = [name for name in names if point in points_of[name]]
            for name in Random(f"{request.config.getoption('randomly_seed', 0)} {point}").sample(
                ways, min(WAYS, len(ways))
            ):
                found[name].append(point)
    return found


@pytest.mark.parametrize("name", ALL)
def test_crash_at_every_point_leaves_nothing_that_a_restart_does_not_mend(name, zygote, tmp_path, crashes, scripts):
    for number, point in enumerate(crashes[name]):
        home = home_for(tmp_path, name, number)

        status, _ = zygote.run(home, scripts[name], point, real=name in REAL_SCRIPTS)

        assert status == crashpoints.EXIT_CODE, point
        _check_mended(home, scripts[name], point, real=name in REAL_SCRIPTS)


def _check_mended(home, script, point, *, real):
    world = world_at(home, real=real)
    try:
        world.do(ReconcileHost(at_start=True))
        _check_invariants(world, point, real=real)
        assert all(_is_whole(blob) for blob in _blobs(world) if blob.suffix != ".part"), point
        again = world.do(ReconcileHost())
        assert (again.stopped, again.removed, again.failed) == ([], [], []), point
        step(world, script[-1])  # the same command again succeeds
        _check_invariants(world, point, real=real)
        assert all(_is_whole(blob) for blob in _blobs(world)), point  # what had begun to come was gone on with
    finally:
        _delete_all(world)
        world.stop()


def _delete_all(world):
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    for taken in world.store.snapshots.all():
        delete_snapshot(world, taken)
    for made in world.store.templates.all():
        world.do(DeleteTemplate(made.key, made.id))


def _blobs(world):
    return sorted((world.layout.blobs / "sha256").iterdir())


def _is_whole(blob):
    return hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def _check_invariants(world, point, *, real):
    assert world.leftovers() == [], point
    assert world.store.leases.held() == set(), point
    for image in world.store.images.all():
        rootfs = world.layout.image_rootfs(image)
        assert rootfs.stat().st_size == image.size_bytes if real else rootfs.read_text() == image.digest, point
        assert image.has_seed == world.layout.image_seed(image).exists(), point
    for kernel in world.store.kernels.all():
        assert (world.layout.kernel_dir(kernel.id) / "kernel.json").exists(), point
    for release in installed(world.layout):
        assert {file.name for file in release.directory.iterdir()} == {*PROGRAMS, RECORD}, point
    for taken in world.store.snapshots.all():
        _check_snapshot(world, taken, point)
    for made in world.store.templates.all():
        assert {path.name for path in world.layout.template_dir(made.id).iterdir()} == {"disk", "machine"}, point
    assert [vm for vm in world.store.vms.all() if vm.makes_template] == [], point
    live = [vm for vm in world.store.vms.all() if vm.state in (VmState.RUNNING, VmState.PAUSED)]
    for vm in live:
        (handle,) = world.ledger.of(vm.id).of("process")
        identity = ProcessIdentity(**handle.detail)
        assert processes.is_same(identity), point
        stands = world.vmm.condition(machine_of(world.services, vm, identity)).health is Health.PAUSED
        assert stands == (vm.state is VmState.PAUSED), point
        assert world.ledger.of(vm.id).of("saver") == [], point
    for vm in world.store.vms.all():
        _check_suspended(world, vm, point)
        assert (world.layout.vm_dir(vm.id) / "disk").read_text() in ("", "later", "20480"), point
        assert list(world.layout.vm_dir(vm.id).glob("kept-disk*")) == [], point
    for vm_id in {VM_ID, *COPY_IDS} - {vm.id for vm in live}:
        assert processes.find(vmm_marker(vm_id)) is None, f"{point}: a machine was lost"
        assert world.ledger.of(vm_id).of() == [], point
    assert processes.find(saver_marker(VM_ID)) is None, point
    if not live:
        assert overview(world.services) == [], point
    assert [found for found in overview(world.services) if found.is_leak] == [], point


def _check_suspended(world, vm, point):
    """What it was suspended to is whole, or there is nothing of it."""
    left = {path.name for path in world.layout.vm_dir(vm.id).glob("suspend*")}
    assert vm.state not in (VmState.SUSPENDING, VmState.STARTING), point
    if vm.state is VmState.SUSPENDED:
        assert left == {"suspended"}, point
        machine = suspended_files.origin_of(world.layout, vm).machine
        assert machine is not None
        assert machine.memory.read_text() == FRESH_MEMORY, point
    else:
        assert left == set(), point


def _check_snapshot(world, taken, point):
    origin = Origin(taken, world.layout.snapshot_dir(taken.id))
    assert (origin.disk / "disk").exists(), point
    if origin.machine:
        assert origin.machine.memory.read_text() == FRESH_MEMORY, point
        assert origin.machine.devices.exists(), point


def _end_machines(home):
    world = crash_world(home)
    _delete_all(world)
    world.stop()


def test_crash_points_are_all_reached_by_some_script(points_of):
    """A point that no script comes by proves nothing: either a script is missing or the point is dead."""
    # What needs a kernel under it is crashed at there: tests/integration/test_crashes_on_host.py.
    real = ("tap.", "namespace.") if "tap" not in NAMES else ("ports.", "namespace.")
    points = {point for point in crashpoints.all_points() if not point.startswith(real)}
    assert points == {point for points in points_of.values() for point in points}


def test_crash_point_names_must_be_literals(tmp_path):
    (tmp_path / "bad.py").write_text("crashpoint(name)\n")
    with pytest.raises(TypeError, match=r"bad\.py"):
        crashpoints.all_points(tmp_path)
