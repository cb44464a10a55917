"""Machines that end by a reboot alone, and which driver a VM gets where there are two."""

from __future__ import annotations

import time

import pytest

from banger.actors.messages import CreateVm, PauseVm, ReconcileHost, RestartVm, ResumeVm, StartVm, StopVm
from banger.actors.services import Vmms
from banger.core.drivers import Drivers
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, Vm, VmState
from banger.core.names import new_id
from banger.core.ports import Drive, TapNic, UserNic
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeFirecracker, FakeVmm
from tests.support.fakes import World
from tests.support.owned_vms import create, process_of
from tests.support.saved_vms import delete_snapshot, snapshot
from tests.support.waiting import eventually


@pytest.fixture
def vmm() -> FakeFirecracker:
    return FakeFirecracker()


def halted(world: World, vm: Vm) -> None:
    """Its guest powers off."""
    world.vmm.exit(world.layout.vm_run_dir(vm.id), "halt")
    log = world.layout.vm_dir(vm.id) / "console.log"
    eventually(lambda: "System halted" in log.read_text())


def test_guest_that_powered_off_is_recorded_as_such_although_its_process_lives(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    process = process_of(vm_world, vm)
    halted(vm_world, vm)
    after = vm_world.reconcile(vm)
    assert after is not None
    assert (after.state, after.exit_reason, after.reason) == (
        VmState.STOPPED, ExitReason.GUEST_POWEROFF, "the guest powered off",
    )  # fmt: skip
    assert not vm_world.vmm.is_alive(process)


def test_guest_that_powered_off_while_no_daemon_ran_is_recorded_by_the_next(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    halted(vm_world, vm)
    vm_world.restart()
    report = vm_world.do(ReconcileHost(at_start=True))
    assert report.stopped == ["web (the guest powered off)"]
    assert vm_world.vm("web").exit_reason is ExitReason.GUEST_POWEROFF


def test_stop_of_a_guest_that_has_powered_off_waits_for_nothing(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    halted(vm_world, vm)
    stopped = vm_world.do(StopVm(vm.id, vm.name, 60.0))
    assert stopped.state is VmState.STOPPED
    assert vm_world.guests.asked_to_power_off == []


def test_stop_has_the_guest_reboot_because_nothing_else_ends_the_machine(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    stopped = vm_world.do(StopVm(vm.id, vm.name, 60.0))
    assert (stopped.state, stopped.exit_reason) == (VmState.STOPPED, ExitReason.REQUESTED)
    assert vm_world.guests.by_reboot == [True]


def test_stop_of_a_guest_that_powers_off_instead_of_rebooting_does_not_wait_for_its_process(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    vm_world.guests.on_power_off = lambda vm: vm_world.vmm.exit(vm_world.layout.vm_run_dir(vm.id), "halt")
    began = time.monotonic()
    assert vm_world.do(StopVm(vm.id, vm.name, 60.0)).state is VmState.STOPPED
    assert time.monotonic() - began < 30.0


def test_restart_pause_and_resume_are_as_with_any_driver(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    assert vm_world.do(RestartVm(vm.id, vm.name, 60.0)).state is VmState.RUNNING
    assert vm_world.do(PauseVm(vm.id, vm.name)).state is VmState.PAUSED
    assert vm_world.do(ResumeVm(vm.id, vm.name)).state is VmState.RUNNING


def test_save_ends_the_connection_to_the_guest_which_nobody_would_hear_of(vm_world: World) -> None:
    vm = create(vm_world, start=True)
    assert vm.id in vm_world.guests.connected

    def full() -> None:
        raise BangerError(ErrorKind.EXHAUSTED, "the disk is full")

    vm_world.vmm.while_saving = full
    with pytest.raises(BangerError):
        snapshot(vm_world, vm, "failed")
    assert vm.id in vm_world.guests.connected
    vm_world.vmm.while_saving = lambda: None
    taken = snapshot(vm_world, vm)
    assert vm.id not in vm_world.guests.connected
    assert vm_world.vm("web").state is VmState.RUNNING
    delete_snapshot(vm_world, taken)


# -- which driver ----------------------------------------------------------------------------------


def both(world: World, setting: str) -> FakeVmm:
    """A world with another driver besides, which is the default and last resort."""
    other = FakeVmm(name="qemu")
    world.vmm.devices = (Drive, TapNic)
    drivers = Drivers("VMM driver", [other, world.vmm], "qemu" if setting == "auto" else setting)
    world.vmms = Vmms(drivers, world.vmm, world.vmm, setting)
    world.restart()
    return other


def made(world: World, **spec: object) -> Vm:
    return world.do(CreateVm(new_id(), "web", VmSpec("alpine", **spec), start=True))  # type: ignore[arg-type, no-any-return]


def test_auto_takes_firecracker_for_what_it_can_do(vm_world: World) -> None:
    both(vm_world, "auto")
    vm = made(vm_world, network="none")
    assert (vm.vmm, "KVM is proven" in vm.vmm_reason) == ("firecracker", True)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"network": "slirp", "egress": "open"}, "cannot give it a network card on its own user-mode stack"),
        ({"network": "none", "machine": "q35"}, "no machine"),
        ({"network": "none", "accelerator": "tcg"}, "no machine"),
    ],
)
def test_auto_takes_qemu_for_what_firecracker_lacks_and_says_so(
    vm_world: World, spec: dict[str, str], why: str
) -> None:
    both(vm_world, "auto")
    vm = made(vm_world, **spec)
    assert (vm.vmm, why in vm.vmm_reason) == ("qemu", True), vm.vmm_reason


def test_auto_takes_qemu_where_firecracker_cannot_run(vm_world: World) -> None:
    both(vm_world, "auto")
    vm_world.vmm.in_the_way = "Firecracker is not installed"
    assert made(vm_world, network="none").vmm_reason == "not firecracker: Firecracker is not installed"


def test_driver_that_is_asked_for_is_taken_or_its_lack_is_told_before_anything_is_made(vm_world: World) -> None:
    other = both(vm_world, "auto")
    with pytest.raises(BangerError, match="cannot run here") as caught:
        made(vm_world, vmm="firecracker", network="slirp", egress="open")
    assert (caught.value.kind, "--vmm qemu" in caught.value.hint) == (ErrorKind.USAGE, True)
    assert (vm_world.images.builds, vm_world.store.vms.all()) == ([], [])
    assert made(vm_world, vmm="qemu", network="none").vmm == "qemu"
    assert other.launched


def test_vm_whose_network_is_missing_is_on_the_stack_of_a_vmm_that_has_one(vm_world: World) -> None:
    other = both(vm_world, "auto")
    vm = made(vm_world, network="user", egress="open")
    assert (vm.vmm, vm.network, vm.network_reason) == ("qemu", "slirp", "pasta is not installed")
    assert [one for one in other.launched[-1].devices if isinstance(one, UserNic)]
    vm = vm_world.do(StopVm(vm.id, vm.name, 60.0))
    assert (vm.network, vm.network_reason) == ("", "")


def test_firecracker_cannot_stand_in_for_a_network_that_is_missing_and_says_what_can_be_done(vm_world: World) -> None:
    both(vm_world, "auto")
    with pytest.raises(BangerError) as caught:
        made(vm_world, vmm="firecracker", network="user", egress="open")
    assert "what the network user lacks here; or --vmm qemu" in caught.value.hint
    assert made(vm_world, vmm="firecracker", network="user").network == "none"


def test_setting_is_taken_for_every_vm_that_asks_for_none(vm_world: World) -> None:
    both(vm_world, "firecracker")
    vm = made(vm_world, network="none")
    assert (vm.vmm, vm.vmm_reason) == ("firecracker", "vmm.driver is set")


def test_vm_gets_another_driver_with_its_next_start_if_the_first_is_gone(vm_world: World) -> None:
    both(vm_world, "auto")
    vm = made(vm_world, network="none")
    vm_world.do(StopVm(vm.id, vm.name, 60.0))
    vm_world.vmm.in_the_way = "Firecracker is not installed"
    assert vm_world.do(StartVm(vm.id, vm.name)).vmm == "qemu"


def test_guest_that_is_cut_off_has_no_card(vm_world: World) -> None:
    made(vm_world, network="none")
    assert not [one for one in vm_world.vmm.launched[-1].devices if isinstance(one, UserNic)]
