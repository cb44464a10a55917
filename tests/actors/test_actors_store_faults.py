"""A store that somebody else holds, or that cannot be written, ends a wish with its reason and leaves nothing half."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from banger.actors.messages import DeleteVm, ReconcileHost, StartVm, StopVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.store import database
from tests.support.owned_vms import create
from tests.support.waiting import eventually


@pytest.fixture
def world(vm_world):
    vm_world.store.database._writer.execute("PRAGMA busy_timeout = 20")
    return vm_world


@contextmanager
def locked(world):
    other = database.sqlite.connect(str(world.layout.database), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


@contextmanager
def read_only(world):
    world.store.database._writer.execute("PRAGMA query_only = ON")
    yield
    world.store.database._writer.execute("PRAGMA query_only = OFF")


@pytest.mark.parametrize(("fault", "kind"), [(locked, ErrorKind.UNAVAILABLE), (read_only, ErrorKind.DENIED)])
def test_wish_that_cannot_be_written_down_says_why_and_leaves_things_as_they_were(world, fault, kind):
    vm = create(world)
    running = create(world, "runs", start=True)
    with fault(world):
        for wish in (lambda: create(world, "new"), lambda: world.do(StartVm(vm.id, vm.name))):
            with pytest.raises(BangerError) as caught:
                wish()
            assert caught.value.kind is kind
            assert str(world.layout.database) in caught.value.message
            assert caught.value.hint
        for wish in (StopVm(running.id, running.name, 1.0), DeleteVm(vm.id, vm.name)):
            with pytest.raises(BangerError) as caught:
                world.do(wish)
            assert caught.value.kind is not ErrorKind.INTERNAL
        assert {one.name for one in world.store.vms.all()} == {"web", "runs"}
    eventually(lambda: not world.operations.active(), what="nothing hangs")
    assert world.do(StartVm(vm.id, vm.name)).state is VmState.RUNNING
    assert create(world, "new").state is VmState.STOPPED
    for one in world.store.vms.all():
        world.do(DeleteVm(one.id, one.name, force=True))
    assert world.leftovers() == []


@pytest.mark.parametrize("fault", [locked, read_only])
def test_start_in_whose_middle_the_store_is_lost_ends_and_the_next_reconcile_puts_it_right(world, fault, monkeypatch):
    vm = create(world)
    lost = fault(world)
    launch = world.vmm.launch

    def launch_and_lose(*arguments):
        identity = launch(*arguments)
        lost.__enter__()
        return identity

    monkeypatch.setattr(world.vmm, "launch", launch_and_lose)
    with pytest.raises(BangerError) as caught:
        world.do(StartVm(vm.id, vm.name))
    assert caught.value.kind in (ErrorKind.UNAVAILABLE, ErrorKind.DENIED)
    lost.__exit__(None, None, None)
    monkeypatch.setattr(world.vmm, "launch", launch)
    world.do(ReconcileHost())
    eventually(lambda: world.vm("web").state in (VmState.STOPPED, VmState.RUNNING), what="it is one or the other")
    world.do(StartVm(vm.id, vm.name))
    assert world.vm("web").state is VmState.RUNNING
    world.do(DeleteVm(vm.id, vm.name, force=True))
    assert world.leftovers() == []
