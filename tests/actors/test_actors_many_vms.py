"""Reconciling an installation of many VMs: all of them, some at a time, and given up as soon as nobody wants it."""

from __future__ import annotations

import threading

import pytest

from banger.actors import host_reconcile, vm_actor
from banger.actors.messages import DeleteVm, ReconcileHost
from banger.actors.vm_reconcile import VmReconciler
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World

WAIT_S = 10.0
AT_ONCE = 4
MANY = 3 * AT_ONCE


class Crowd:
    """Reconcilers that wait for each other: it is full once as many as may are at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.full = threading.Event()
        self.may_go_on = threading.Event()

    def enter(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            if self._now == AT_ONCE:
                self.full.set()
        assert self.may_go_on.wait(WAIT_S)
        with self._lock:
            self._now -= 1


@pytest.fixture
def crowd(monkeypatch):
    crowd = Crowd()

    class Waiting(VmReconciler):
        def run(self, vm, operation):
            crowd.enter()
            return super().run(vm, operation)

    monkeypatch.setattr(vm_actor, "VmReconciler", Waiting)
    monkeypatch.setattr(host_reconcile, "_AT_ONCE", AT_ONCE)
    return crowd


@pytest.fixture
def world(tmp_path, crowd):
    world = World(tmp_path, FakeVmm())
    storage = world.services.host.storages.default.name
    for number in range(MANY):
        vm = Vm(new_id(), f"vm-{number}", VmSpec("alpine"), VmState.RUNNING, clock.now(), storage=storage)
        world.store.vms.insert(vm)
        world.layout.vm_dir(vm.id).mkdir(parents=True)
    yield world
    crowd.may_go_on.set()
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    world.stop()


def test_every_one_of_many_vms_is_reconciled_and_never_more_than_some_at_once(world, crowd):
    waiter = world.supervisor.submit(ReconcileHost(at_start=True))
    assert crowd.full.wait(WAIT_S)
    crowd.may_go_on.set()
    report = waiter.wait()

    assert len(report.stopped) == MANY
    assert not report.failed
    assert {vm.state for vm in world.store.vms.all()} == {VmState.STOPPED}
    assert crowd.most == AT_ONCE


def test_reconcile_that_is_cancelled_asks_no_further_owners(world, crowd):
    waiter = world.supervisor.submit(ReconcileHost(at_start=True))
    assert crowd.full.wait(WAIT_S)
    [whole] = [one for one in world.supervisor.operations.active() if one.kind == ReconcileHost.verb]
    whole.cancel("the daemon is shutting down")

    with pytest.raises(BangerError) as caught:
        waiter.wait()
    assert caught.value.kind is ErrorKind.CANCELLED
    assert not crowd.may_go_on.is_set(), "it ended although those at work did not"
    assert crowd.most == AT_ONCE
