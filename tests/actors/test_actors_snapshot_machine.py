"""A random life of VMs and their snapshots against a model of what each has in its memory and on its disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from banger.actors import suspended_files
from banger.actors.messages import DeleteVm, KillVm, ReconcileHost, StartVm, SuspendVm, WakeVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.core.origin import Origin
from tests.support import in_memory
from tests.support.fake_vmm import FRESH_MEMORY, FakeVmm, Fault
from tests.support.fakes import World
from tests.support.owned_vms import create
from tests.support.saved_vms import (
    copied_guests,
    delete_snapshot,
    disk_of,
    fork,
    read,
    restore,
    rewind,
    snapshot,
    write,
)

pytestmark = pytest.mark.slow

VMS = st.sampled_from(["one", "two", "three", "four"])
SNAPSHOTS = st.sampled_from(["first", "second"])
#: Memory, None while there is none, and disk.
Contents = tuple[str | None, str]


class SavedVms(RuleBasedStateMachine):
    """Model: name of a VM, and of a snapshot, to what it holds."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="machine-", dir=in_memory.place()))
        self.world = World(self.home, FakeVmm())
        copied_guests(self.world)
        self.vms: dict[str, Contents] = {}
        self.snapshots: dict[str, Contents] = {}
        self.asleep: set[str] = set()
        self.written = 0

    def teardown(self) -> None:
        if hasattr(self, "world"):
            for vm in self.world.store.vms.all():
                self.world.do(DeleteVm(vm.id, vm.name, force=True))
            self.world.stop()
            shutil.rmtree(self.home)

    def _restored(self, saved: Contents) -> Contents:
        return (FRESH_MEMORY if saved[0] is None else saved[0], saved[1])

    @rule(name=VMS)
    def create(self, name):
        if name not in self.vms:
            create(self.world, name, start=True)
            self.vms[name] = (FRESH_MEMORY, "")

    @rule(name=VMS)
    def write(self, name):
        if self._runs(name):
            self.written += 1
            write(self.world, self.world.vm(name), f"{name} {self.written}")
            self.vms[name] = (f"{name} {self.written}",) * 2

    @rule(name=VMS)
    def end(self, name):
        if name in self.vms:
            self.world.do(KillVm(self.world.vm(name).id, name))
            self._lose_memory(name)

    @rule(name=VMS, cold=st.booleans())
    def start(self, name, cold):
        if name in self.vms:
            if cold and name in self.asleep:
                self._lose_memory(name)
            self.world.do(StartVm(self.world.vm(name).id, name, cold=cold))
            self.vms[name] = self._restored(self.vms[name])
            self.asleep.discard(name)

    @rule(name=VMS, fails=st.booleans())
    def suspend(self, name, fails):
        if not self._runs(name):
            return
        if fails:
            self.world.vmm.while_saving = self._full
            assert self._refusal(lambda: self._suspend(name)) is ErrorKind.EXHAUSTED
            self.world.vmm.while_saving = lambda: None
            return
        self._suspend(name)
        self.asleep.add(name)

    @rule(name=VMS)
    def wake_that_fails(self, name):
        if name in self.asleep:
            self.world.vmm.faults[name] = Fault.DIES
            wake = WakeVm(self.world.vm(name).id, name)
            assert self._refusal(lambda: self.world.do(wake)) is ErrorKind.UNAVAILABLE

    def _suspend(self, name):
        self.world.do(SuspendVm(self.world.vm(name).id, name))

    def _full(self):
        raise BangerError(ErrorKind.EXHAUSTED, "the disk is full")

    def _runs(self, name):
        return self.vms.get(name, (None,))[0] is not None and name not in self.asleep

    def _lose_memory(self, name):
        self.vms[name] = (None, self.vms[name][1])
        self.asleep.discard(name)

    @rule(vm=VMS, name=SNAPSHOTS, stop=st.booleans())
    def snapshot(self, vm, name, stop):
        if vm not in self.vms:
            return
        if name in self.snapshots:
            assert self._refusal(lambda: snapshot(self.world, self.world.vm(vm), name)) is ErrorKind.ALREADY_EXISTS
            return
        if vm in self.asleep:
            assert self._refusal(lambda: snapshot(self.world, self.world.vm(vm), name)) is ErrorKind.CONFLICT
            return
        snapshot(self.world, self.world.vm(vm), name, stop=stop)
        self.snapshots[name] = self.vms[vm]
        if stop:
            self.vms[vm] = (None, self.vms[vm][1])

    @rule(vm=VMS, name=SNAPSHOTS)
    def snapshot_that_fails(self, vm, name):
        if not self._runs(vm) or name in self.snapshots:
            return
        self.world.vmm.while_saving = self._full
        assert self._refusal(lambda: snapshot(self.world, self.world.vm(vm), name)) is ErrorKind.EXHAUSTED
        self.world.vmm.while_saving = lambda: None

    @rule(snap=SNAPSHOTS, name=VMS)
    def restore(self, snap, name):
        if snap not in self.snapshots:
            return
        taken = self.world.store.snapshots.by_name(snap)
        if name in self.vms:
            assert self._refusal(lambda: restore(self.world, taken, name)) is ErrorKind.ALREADY_EXISTS
            return
        restore(self.world, taken, name)
        self.vms[name] = self._restored(self.snapshots[snap])

    @rule(vm=VMS, names=st.lists(VMS, min_size=1, max_size=2, unique=True), fails=st.booleans())
    def fork(self, vm, names, fails):
        if vm not in self.vms or vm in self.asleep or set(names) & set(self.vms):
            return
        source = self.world.vm(vm)
        if fails:
            self.world.vmm.faults[names[-1]] = Fault.DIES
            assert self._refusal(lambda: fork(self.world, source, *names)) is ErrorKind.UNAVAILABLE
            return
        fork(self.world, source, *names)
        self.vms |= dict.fromkeys(names, self._restored(self.vms[vm]))

    @rule(vm=VMS, name=SNAPSHOTS, fails=st.booleans())
    def rewind(self, vm, name, fails):
        if vm not in self.vms or name not in self.snapshots:
            return
        source, taken = self.world.vm(vm), self.world.store.snapshots.by_name(name)
        if taken.vm_id != source.id:
            assert self._refusal(lambda: rewind(self.world, source, taken)) is ErrorKind.CONFLICT
            return
        memory, disk = self.snapshots[name]
        ran = self._runs(vm)
        if memory is None and not ran:
            rewind(self.world, source, taken)
            self.vms[vm] = (None, disk)
        elif fails:
            self.world.vmm.faults[vm] = Fault.DIES
            assert self._refusal(lambda: rewind(self.world, source, taken)) is ErrorKind.UNAVAILABLE
            self.vms[vm] = (None, self.vms[vm][1])
        else:
            rewind(self.world, source, taken)
            self.vms[vm] = self._restored(self.snapshots[name])
        self.asleep.discard(vm)

    @rule(name=VMS)
    def delete(self, name):
        if name in self.vms:
            self.world.do(DeleteVm(self.world.vm(name).id, name, force=True))
            del self.vms[name]
            self.asleep.discard(name)

    @rule(name=SNAPSHOTS)
    def delete_snapshot(self, name):
        if name in self.snapshots:
            delete_snapshot(self.world, self.world.store.snapshots.by_name(name))
            del self.snapshots[name]

    @rule()
    def restart(self):
        self.world.restart()
        self.world.do(ReconcileHost(at_start=True))
        again = self.world.do(ReconcileHost())
        assert (again.stopped, again.recovered, again.removed, again.failed) == ([], [], [], [])

    @rule()
    def lose_rows_of_snapshots(self):
        self.world.store.database.execute("DELETE FROM snapshots")
        found = self.world.do(ReconcileHost(at_start=True)).recovered
        assert sorted(found) == sorted(f"snapshot {name}" for name in self.snapshots)

    def _refusal(self, deed):
        with pytest.raises(BangerError) as caught:
            deed()
        return caught.value.kind

    @invariant()
    def memories_and_disks_are_as_the_model_says(self):
        if not hasattr(self, "world"):
            return
        store = self.world.store
        assert {vm.name: self._contents(vm) for vm in store.vms.all()} == self.vms
        assert {taken.name: self._saved(taken) for taken in store.snapshots.all()} == self.snapshots
        assert self.world.leftovers() == []
        assert store.leases.held() == set()

    def _contents(self, vm):
        assert (vm.name in self.asleep) == (vm.state is VmState.SUSPENDED)
        if vm.state is VmState.SUSPENDED:
            machine = suspended_files.origin_of(self.world.layout, vm).machine
            return machine.memory.read_text(), disk_of(self.world, vm).read_text()
        assert not self.world.layout.suspended_dir(vm.id).exists()
        return read(self.world, vm) if vm.state is VmState.RUNNING else (None, disk_of(self.world, vm).read_text())

    def _saved(self, taken):
        origin = Origin(taken, self.world.layout.snapshot_dir(taken.id))
        return (origin.machine and origin.machine.memory.read_text(), (origin.disk / "disk").read_text())


SavedVms.TestCase.settings = settings(
    max_examples=max(12, settings().max_examples // 6),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_saved_vms_live_as_the_model_says = SavedVms.TestCase
