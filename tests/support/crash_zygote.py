"""Runs scripts of owner commands in forked children, so that one can be made to die at a crash point.

Started as a process of its own: it imports everything once, has one thread, and forks per case, which takes
milliseconds instead of a Python start. A case is a line of JSON on stdin; the answer, a line of JSON on stdout, is the
exit status and the points that the last step of the script came by.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from banger.core import crashpoints

_crash, _passed = crashpoints.crashpoint, set()


def _noting(name: str) -> None:
    _passed.add(name)
    _crash(name)


crashpoints.crashpoint = _noting  # before anybody imports it by name

from banger.actors import messages as m  # noqa: E402
from banger.actors.vm_machines import machine_of  # noqa: E402
from banger.core.errors import BangerError  # noqa: E402
from banger.core.models import VmState  # noqa: E402
from banger.core.names import new_id  # noqa: E402
from banger.core.ports import Health, ImageRequest, KernelRequest, ReleaseRequest  # noqa: E402
from banger.core.wire.vm_spec import VmSpec  # noqa: E402
from banger.vmm import identity as processes  # noqa: E402
from tests.support import origins  # noqa: E402  # imported before the forks, not in each of them
from tests.support.fake_vmm import Fault  # noqa: E402
from tests.support.fakes import World  # noqa: E402
from tests.support.firecracker import make_release  # noqa: E402
from tests.support.host_drivers import crash_world, network, published  # noqa: E402
from tests.support.owned_vms import process_of  # noqa: E402
from tests.support.saved_vms import (  # noqa: E402
    checkpoint,
    copied_guests,
    delete_snapshot,
    disk_of,
    keep_checkpoints,
    restoring,
    rewind,
    snapshot,
)
from tests.support.waiting import eventually  # noqa: E402

#: The same here and in the process that serves, but another one in every run: machines are looked for on the whole host.
VM_ID = os.environ.setdefault("CRASH_VM_ID", new_id())
#: Of VMs that begin from a snapshot of it.
COPY_IDS = (VM_ID[::-1], VM_ID[6:] + VM_ID[:6])


def own_file(world: World) -> Path:
    """The user's own root file system, outside the store."""
    file = world.layout.data.parent / "own.ext4"
    file.write_text("sha256:own")
    return file


def step(world: World, script: str) -> None:  # noqa: C901, PLR0912  # one line a verb
    """One command of a script, ``VERB`` or ``VERB=NAME``; it can be run again after a crash."""
    verb, _, name = script.partition("=")
    name = name or ("default" if "kernel" in verb else "alpine")
    vm = world.store.vms.get(VM_ID)
    image, kernel = world.store.images.by_name(name), world.store.kernels.by_name(name)
    taken = world.store.snapshots.by_name("snap")
    match verb:
        case "pull":
            world.do(m.PullImage(name, ImageRequest(name), refresh=True))
        case "move tag":
            world.images.digests[name] = "sha256:moved"
        case "delete image" if image:
            world.do(m.DeleteImage(name, image.id))
        case "pull kernel":
            world.do(m.PullKernel(name, KernelRequest(source=name), refresh=True))
        case "delete kernel" if kernel:
            world.do(m.DeleteKernel(name, kernel.id))
        case "register" if image is None:
            world.do(m.RegisterImage(name, str(own_file(world))))
        case "promote" if image:
            world.do(m.PromoteImage(name))
        case "tag" if image:
            world.do(m.TagImage("alias", image.id))
        case "commit" if world.store.images.by_name("committed") is None:
            world.do(m.CommitVm("committed", VM_ID))
        case "create" if vm is None:
            world.do(m.CreateVm(VM_ID, "web", VmSpec("alpine", network=network(), ports=published())))
        case "break kvm":
            vmm = world.vmm
            vmm.engines.found, vmm.consoles["kvm"], vmm.broken["web"] = "kvm", "", "KVM internal error"
        case "break guest":
            world.vmm.console = "Kernel panic - not syncing: No working init found.\n"
        case "try to start" if vm is not None:
            with suppress(BangerError):
                world.do(m.StartVm(VM_ID, "web"))
        case "start" if vm is not None:
            world.do(m.StartVm(VM_ID, "web"))
        case "start cold" if vm is not None:
            world.do(m.StartVm(VM_ID, "web", cold=True))
        case "suspend" if vm is not None and vm.state in (VmState.RUNNING, VmState.PAUSED):
            world.do(m.SuspendVm(VM_ID, "web"))
        case "stop" if vm is not None:
            world.do(m.StopVm(VM_ID, "web", 0.0))
        case "restart" if vm is not None:
            world.do(m.RestartVm(VM_ID, "web", 0.0))
        case "reboot" if vm is not None and vm.pid:
            world.vmm.exit(world.layout.vm_run_dir(VM_ID), "reboot")
            identity = process_of(world, vm)
            assert processes.wait_gone(identity, 10.0)
            world.do(m.ReconcileVm(VM_ID, "web", exited=identity))
            world.do(m.StartVm(VM_ID, "web", again=True))
        case "power off" if vm is not None and vm.pid:
            world.vmm.exit(world.layout.vm_run_dir(VM_ID), "halt")
            machine = machine_of(world.services, vm, process_of(world, vm))
            eventually(lambda: world.vmm.condition(machine).health is Health.HALTED)
            world.do(m.ReconcileVm(VM_ID, "web"))
        case "pause" if vm is not None:
            world.do(m.PauseVm(VM_ID, "web"))
        case "resume" if vm is not None:
            world.do(m.ResumeVm(VM_ID, "web"))
        case "grow" if vm is not None:
            world.do(m.GrowVm(VM_ID, "web", 20480))
        case "lose row" if vm is not None:
            world.store.database.execute("DELETE FROM handles")
            world.store.vms.delete(VM_ID)
        case "lose snapshot":
            world.store.database.execute("DELETE FROM snapshots")
        case "kill" if vm is not None:
            world.do(m.KillVm(VM_ID, "web"))
        case "delete" if vm is not None:
            world.do(m.DeleteVm(VM_ID, "web", force=True))
        case "snapshot" if vm is not None and world.store.snapshots.by_name("snap") is None:
            snapshot(world, vm)
        case "snapshot and stop" if vm is not None and world.store.snapshots.by_name("snap") is None:
            snapshot(world, vm, stop=True)
        case "delete snapshot" if taken:
            delete_snapshot(world, taken)
        case "export snapshot" if taken:
            file = world.layout.data.parent / "exported"
            file.unlink(missing_ok=True)
            world.do(m.ExportSnapshot("snap", taken.id, str(file)))
        case "import snapshot" if world.store.snapshots.by_name("imported") is None:
            world.do(m.ImportSnapshot("imported", str(world.layout.data.parent / "exported")))
        case "keep one checkpoint":
            keep_checkpoints(world, 1)
        case "checkpoint" if vm is not None:
            checkpoint(world, vm)
        case "write" if vm is not None:
            disk_of(world, vm).write_text("later")
        case "rewind" if taken and vm is not None:
            rewind(world, vm)
        case "try to rewind" if taken and vm is not None:
            world.vmm.faults["web"] = Fault.DIES
            with suppress(BangerError):
                rewind(world, vm)
        case "restore" if taken and world.store.vms.get(COPY_IDS[0]) is None:
            world.do(restoring(world, taken, "again", COPY_IDS[0]))
        case "fork" | "fork snapshot" if vm is not None and not world.store.vms.by_name("one"):
            source = "" if verb == "fork" or taken is None else taken.id
            copies = (m.Copy(COPY_IDS[0], "one"), m.Copy(COPY_IDS[1], "two"))
            world.do(m.ForkVm(new_id(), "web", VM_ID, source, copies))
        case "make template":
            (wish,) = world.store.wishes.all()
            world.do(m.MakeTemplate(wish.id, wish))
        case "break template":
            for made in world.store.templates.all():
                (world.layout.template_dir(made.id) / "disk" / "disk").unlink()
        case "delete template":
            for made in world.store.templates.all():
                world.do(m.DeleteTemplate(made.key, made.id))
        case "create another" if world.store.vms.get(COPY_IDS[0]) is None:
            world.do(m.CreateVm(COPY_IDS[0], "another", VmSpec("alpine", network=network())))
        case "start another":
            if world.store.vms.get(COPY_IDS[0]) is None:
                world.do(m.CreateVm(COPY_IDS[0], "another", VmSpec("alpine", network=network()), start=True))
            else:
                world.do(m.StartVm(COPY_IDS[0], "another"))
            world.do(m.ReconcileVm(COPY_IDS[0], "another"))  # the supervisor has heard by now of what nobody waits for
            eventually(lambda: not world.operations.active(), what="a template that does not do is deleted")
        case "install driver":
            source = make_release(world.layout.data.parent / "release", "1.16.1")
            sums = tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in source.iterdir())
            world.do(m.InstallDriver("firecracker", ReleaseRequest(source=str(source), sums=sums)))
        case "damage driver":
            (world.layout.driver_dir("firecracker", "1.16.1") / "jailer").write_bytes(b"damaged")
        case "remove driver" if world.layout.driver_dir("firecracker", "1.16.1").exists():
            world.do(m.RemoveDriver("firecracker", "1.16.1"))
        case "prune":
            world.do(m.Prune(unused=True))
        case "reconcile":
            world.do(m.ReconcileHost(at_start=True))


def world_at(home: Path, *, real: bool) -> World:
    """The world of a script: over fakes, or over sources that ask registries."""
    if not real:
        world = crash_world(home)
        copied_guests(world)
        return world
    return origins.real_world(home)


def run(home: Path, script: Sequence[str], point: str, digests: Mapping[str, str], *, real: bool) -> list[str]:
    """The whole script, the point armed before its last step; which points that step came by."""
    world = world_at(home, real=real)
    world.images.digests.update(digests)
    for verb in script[:-1]:
        step(world, verb)
    _passed.clear()
    crashpoints.arm(point)
    step(world, script[-1])
    world.stop()
    return sorted(_passed)


def main() -> None:
    """Serve cases until stdin ends."""
    for line in sys.stdin:
        case = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            status = 1
            try:
                sys.stdout = sys.stderr
                points = run(Path(case.pop("home")), **case)
                os.write(writing, json.dumps(points).encode())
                status = 0
            except BaseException:  # noqa: BLE001  # the child of a fork must not unwind into its parent's frames
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            points = json.loads(pipe.read() or b"[]")
        _, raw = os.waitpid(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(raw), points]), flush=True)


class Zygote:
    """The parent's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash_zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LOGURU_LEVEL": "ERROR"},
            cwd=Path(__file__).parents[2],
        )

    def run(
        self,
        home: Path,
        script: Sequence[str],
        point: str = "",
        *,
        digests: Mapping[str, str] | None = None,
        real: bool = False,
    ) -> tuple[int, list[str]]:
        """Run a script in a child; its exit status (137: it died at the point) and the points it came by.

        Args:
            home: of the world.
            script: commands, see :func:`step`.
            point: where the last of them dies.
            digests: what the fake registry's tags mean.
            real: the last part of the names are references to real registries.
        """
        assert self._process.stdin
        assert self._process.stdout
        case = {"home": str(home), "script": list(script), "point": point, "digests": dict(digests or {}), "real": real}
        print(json.dumps(case), file=self._process.stdin, flush=True)
        status, points = json.loads(self._process.stdout.readline())
        return status, points

    def close(self) -> str:
        """End it; what the children said on stderr."""
        return self._process.communicate()[1]


if __name__ == "__main__":
    main()
