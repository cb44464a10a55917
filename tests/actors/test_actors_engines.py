"""What a VM's start does where KVM promises guests and lets kernels hang."""

from __future__ import annotations

import signal
import threading
from itertools import count

import pytest

from banger.actors.housekeeping import Housekeeper
from banger.actors.messages import CreateVm, ReconcileHost, StartVm, StopVm
from banger.core.boot_pace import BootPace
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, VmState
from banger.core.wire.vm_spec import VmSpec
from banger.vmm import identity as processes
from tests.support.fake_vmm import BOOT_MARKS, FakeVmm, Fault
from tests.support.fakes import World
from tests.support.owned_vms import create, process_of
from tests.support.waiting import eventually

PACE = BootPace(silence_s=2.0, init_s=6.0, ready_s=9.0, emulated_s=3.0)
KERNEL = "sha256:default"
BROKEN = "KVM internal error. Suberror: 1"


@pytest.fixture
def vmm() -> FakeVmm:
    """On KVM kernels say nothing, and every look at the VMM finds that it has worked for another second."""
    vmm = FakeVmm(consoles={"kvm": ""})
    ticks = count()
    vmm.cpu_s = lambda: float(next(ticks))
    vmm.engines.found, vmm.engines.pace = "kvm", PACE
    return vmm


def test_kernel_that_is_silent_on_kvm_comes_up_emulated_in_the_same_start(vm_world: World, vmm: FakeVmm) -> None:
    vm = create(vm_world, start=True)
    assert (vm.state, vm.accelerator) == (VmState.RUNNING, "tcg")
    assert [one.accelerator for one in vmm.launched] == ["kvm", "tcg"]
    assert "console was silent" in vmm.engines.kept[KERNEL]
    assert vm.pid == process_of(vm_world, vm).pid


def test_kernel_on_trial_is_verbose_and_one_that_came_up_is_quiet(vm_world: World, vmm: FakeVmm) -> None:
    vmm.consoles.clear()
    vm = create(vm_world, start=True)
    vm_world.do(StopVm(vm.id, vm.name, 10.0))
    vm_world.do(StartVm(vm.id, vm.name))
    assert ["verbose" in one.cmdline for one in vmm.launched] == [True, False]
    assert vmm.engines.kept == {KERNEL: ""}


def test_kernel_that_did_not_come_up_on_kvm_is_emulated_at_once_the_next_time(vm_world: World, vmm: FakeVmm) -> None:
    create(vm_world, start=True)
    create(vm_world, "second", start=True)
    assert [one.accelerator for one in vmm.launched] == ["kvm", "tcg", "tcg"]


def test_kernel_that_comes_up_nowhere_is_no_verdict_on_kvm(vm_world: World, vmm: FakeVmm) -> None:
    vmm.consoles["tcg"] = "banger: failed: no disk\n"
    with pytest.raises(BangerError, match="no disk"):
        create(vm_world, start=True)
    assert vmm.engines.kept == {}
    assert vm_world.leftovers() == []


def test_guest_that_fails_on_kvm_by_itself_is_not_tried_again(vm_world: World, vmm: FakeVmm) -> None:
    vmm.consoles["kvm"] = "banger: init 0.1\nbanger: failed: no disk\n"
    with pytest.raises(BangerError, match="no disk"):
        create(vm_world, start=True)
    assert [one.accelerator for one in vmm.launched] == ["kvm"]


def test_kvm_that_was_asked_for_is_an_error_with_the_reason(vm_world: World, vmm: FakeVmm) -> None:
    with pytest.raises(BangerError, match="console was silent") as caught:
        create(vm_world, start=True, accelerator="kvm")
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert [one.accelerator for one in vmm.launched] == ["kvm"]


def test_emulation_that_was_asked_for_tries_no_kvm(vm_world: World, vmm: FakeVmm) -> None:
    assert create(vm_world, start=True, accelerator="tcg").accelerator == "tcg"
    assert [one.accelerator for one in vmm.launched] == ["tcg"]


def test_accelerator_that_nobody_knows_is_a_usage_error_and_makes_nothing(vm_world: World) -> None:
    with pytest.raises(BangerError) as caught:
        create(vm_world, accelerator="hax")
    assert caught.value.kind is ErrorKind.USAGE
    assert vm_world.store.vms.all() == []


def test_machine_that_kvm_does_not_take_is_emulated_and_kvm_is_proven_anew(vm_world: World, vmm: FakeVmm) -> None:
    vmm.faults["web"] = Fault.ENGINE
    vm = create(vm_world, start=True)
    assert vm.accelerator == "tcg"
    assert vmm.engines.forgotten == [KERNEL]


def test_kvm_that_breaks_with_a_kernel_that_once_came_up_is_forgotten_and_emulated(
    vm_world: World, vmm: FakeVmm
) -> None:
    vmm.engines.kept[KERNEL] = ""
    vmm.broken["web"] = BROKEN
    vm = create(vm_world, start=True)
    assert vm.accelerator == "tcg"
    assert vmm.engines.forgotten == [KERNEL]


def test_machine_that_kvm_drops_while_it_runs_ends_with_that_reason(vm_world: World, vmm: FakeVmm) -> None:
    vmm.consoles.clear()
    vm = create(vm_world, start=True)
    identity = process_of(vm_world, vm)
    (vm_world.layout.vm_dir(vm.id) / "vmm.log").write_text(f"{BROKEN}\n")
    Housekeeper(vm_world.services).check_vmms()
    eventually(lambda: vm_world.vm("web").state is VmState.STOPPED, what="it is reconciled")
    reconciled = vm_world.vm("web")
    assert (reconciled.exit_reason, reconciled.reason) == (ExitReason.KVM_FAILURE, BROKEN)
    assert not vmm.is_alive(identity)
    assert vmm.engines.forgotten == [KERNEL]


def test_machine_that_kvm_dropped_while_no_daemon_ran_is_found_at_its_start(vm_world: World, vmm: FakeVmm) -> None:
    vmm.consoles.clear()
    vm = create(vm_world, start=True)
    (vm_world.layout.vm_dir(vm.id) / "vmm.log").write_text(f"{BROKEN}\n")
    vm_world.restart()
    vm_world.do(ReconcileHost(at_start=True))
    assert vm_world.vm("web").exit_reason is ExitReason.KVM_FAILURE


def test_slow_boot_of_a_vmm_that_gets_no_processor_time_is_waited_for(vm_world: World, vmm: FakeVmm) -> None:
    """A busy host must not cost a kernel its KVM."""
    vmm.cpu_s = lambda: 0.0
    late = threading.Timer(1.0, lambda: _say(vm_world))
    late.start()
    try:
        assert create(vm_world, start=True).accelerator == "kvm"
    finally:
        late.join()


@pytest.mark.parametrize(
    ("number", "accelerators"), [(signal.SIGKILL, ["kvm"]), (signal.SIGABRT, ["kvm", "tcg"])], ids=["killed", "crashed"]
)
def test_vmm_that_somebody_kills_while_its_kernel_is_on_trial_is_no_verdict_on_kvm(
    vm_world: World, vmm: FakeVmm, number: signal.Signals, accelerators: list[str]
) -> None:
    vmm.cpu_s = lambda: 0.0
    made = vm_world.supervisor.submit(CreateVm("0123456789ab", "web", VmSpec("alpine"), start=True))
    assert made is not None
    (machine,) = eventually(lambda: vmm.up, what="the VMM runs")
    processes.kill(machine, number)
    if accelerators == ["kvm"]:
        with pytest.raises(BangerError, match="killed with SIGKILL while it booted"):
            made.wait()
    else:
        assert made.wait().accelerator == "tcg"
    assert [one.accelerator for one in vmm.launched] == accelerators


def _say(world: World) -> None:
    (console,) = world.layout.data.glob("vms/*/console.log")
    with console.open("a") as file:
        file.write(BOOT_MARKS)
