"""The users of VMMs: written down before one is launched, and free again once it is gone, not before."""

from __future__ import annotations

from typing import Any

import pytest

from banger.actors.messages import CreateVm, KillVm, ReconcileVm, StartVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from banger.host.uids import held_by
from tests.support.fake_vmm import Fault
from tests.support.fakes import USERS, World


def running(world: World, name: str) -> Any:
    return world.do(CreateVm(new_id(), name, VmSpec("alpine"), start=True))


def user(world: World, vm: Any) -> int:
    return held_by(world.ledger.of(vm.id))


def test_vmms_that_run_at_the_same_time_are_different_users_as_the_ledger_says(vm_world, vmm):
    one, two = running(vm_world, "one"), running(vm_world, "two")
    assert [config.uid for config in vmm.launched] == [user(vm_world, one), user(vm_world, two)]
    assert {user(vm_world, one), user(vm_world, two)} <= set(USERS)
    assert user(vm_world, one) != user(vm_world, two)


def test_user_of_a_vmm_outlives_the_daemon_and_is_free_when_the_vmm_is_gone(vm_world):
    vm = running(vm_world, "web")
    before = user(vm_world, vm)
    vm_world.restart()
    vm_world.do(ReconcileVm(vm.id, vm.name))
    assert user(vm_world, vm) == before != 0
    vm_world.do(KillVm(vm.id, vm.name))
    assert user(vm_world, vm) == 0


def test_user_is_not_free_while_its_vmm_may_live(vm_world, vmm, monkeypatch):
    vm = running(vm_world, "web")

    def refuses(identity, timeout_s=10.0):
        raise BangerError(ErrorKind.TIMEOUT, "it does not end")

    with monkeypatch.context() as broken:
        broken.setattr(vmm, "kill", refuses)
        with pytest.raises(BangerError):
            vm_world.do(KillVm(vm.id, vm.name))
        assert vm_world.vm("web").state is VmState.FAILED
        assert user(vm_world, vm) != 0
    vm_world.reconcile(vm_world.vm("web"))
    assert user(vm_world, vm) == 0


def test_start_that_fails_leaves_no_user_taken(vm_world, vmm):
    vm = vm_world.do(CreateVm(new_id(), "web", VmSpec("alpine"), start=False))
    vmm.faults["web"] = Fault.REFUSED
    with pytest.raises(BangerError):
        vm_world.do(StartVm(vm.id, vm.name))
    assert vmm.launched[-1].uid in USERS
    assert user(vm_world, vm) == 0
