"""Suspending a VM to its disk and waking it again, in its owner's thread.

The guest stands still from before its memory is saved until its VMM is gone: nothing that it does is lost, and nothing
else writes its disk, which therefore stays where it is and needs no copy.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from loguru import logger

from banger.actors import suspended_files as files
from banger.actors import vm_clock
from banger.actors.messages import SavedVm, SuspendVm
from banger.actors.services import Services
from banger.actors.snapshot_rows import snapshot_row
from banger.actors.vm_keeper import VmKeeper
from banger.actors.vm_machines import driver_of, machine_of
from banger.actors.vm_saving import check_whole, savable_machine, save_machine
from banger.core import clock
from banger.core.cancel import CancelToken
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, ProcessIdentity, Vm, VmState
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.core.ports import Machine
from banger.core.suspension import IDLE, USER, Suspension


def suspend(services: Services, keeper: VmKeeper, vm: Vm, command: SuspendVm, operation: Operation) -> Vm:
    """Save its machine and end it; one that is suspended is left alone.

    Raises:
        BangerError: before anything is touched, ``conflict`` for a VM that does not run, and ``unavailable`` if its
            machine cannot be saved; what VMM drivers raise, and then it runs on.
    """
    if vm.state is VmState.SUSPENDED:
        return vm
    was = _check(vm)
    check_whole(vm)
    machine = savable_machine(services, vm, "")
    saving = keeper.moved(vm, VmState.SUSPENDING)
    crashpoint("vm.suspend:begun")
    if command.by == IDLE and services.vms.guests.served(vm.id):  # who came after this was written waits for it
        return keeper.save(vm, state=was)
    driver = driver_of(services, vm)
    with ExitStack() as undo:
        undo.callback(_go_on, services, keeper, vm, machine)
        with operation.step("stand still"):
            driver.pause(machine, operation.haste)
        crashpoint("vm.suspend:standing")
        with operation.step("save machine"):
            _save(services, saving, machine, command.by, operation.haste)
        undo.pop_all()
    crashpoint("vm.suspend:saved")
    services.vms.guests.disconnect(vm.id, "the VM was suspended")
    vm = keeper.down(vm, ExitReason.NONE, command.reason, operation, state=VmState.SUSPENDED)
    listen(services, vm)
    return vm


def listen(services: Services, vm: Vm, *, is_told: bool = False) -> bool:
    """Have a suspended VM woken by who comes to one of its published ports.

    False if that cannot be, for now; in the log unless it was told before.
    """
    try:
        services.vms.doors.listen(vm)
    except (BangerError, OSError) as error:
        if not is_told:
            logger.warning("{}: nobody listens at its published ports while it is suspended: {}", vm.name, error)
        return False
    return True


def origin_of(services: Services, vm: Vm) -> Origin | None:
    """What a start of this VM goes on from; None if it boots. Raises ``invalid`` for a damaged one."""
    if vm.state is VmState.SUSPENDED or (vm.state is VmState.FAILED and files.is_saved(services.layout, vm)):
        return files.origin_of(services.layout, vm)
    return None


def give_up(services: Services, keeper: VmKeeper, vm: Vm, reason: ExitReason) -> Vm:
    """Drop what it was suspended to: it is stopped, as after a power failure."""
    services.vms.doors.let_go(vm.id)
    files.clear(services.layout, vm.id)
    crashpoint("vm.unsuspend:given-up")
    return keeper.save(vm, state=VmState.STOPPED, exit_reason=reason, reason="", stopped_at=clock.now())


def sleep_again(services: Services, vm: Vm, identity: ProcessIdentity, operation: Operation) -> None:
    """Save once more what was woken, and cannot be used or is not wanted any more: nothing of it is to be lost.

    If that fails too, it is stopped by whoever takes it down.
    """
    if not services.vms.vmms.processes.is_alive(identity):
        return
    machine = machine_of(services, vm, identity)
    try:
        with operation.step("save machine again", is_cleanup=True):
            driver_of(services, vm).pause(machine)
            _save(services, vm, machine, USER, CancelToken())
    except Exception as error:  # noqa: BLE001  # the boundary: the error that led here is the one to report
        files.clear(services.layout, vm.id)
        logger.error("{}: what is in its memory is lost: {}", vm.name, error)


def after_failed_start(services: Services, vm: Vm) -> VmState:
    """What a VM is whose start failed, and whose machine is down: suspended, if what it goes on from is there."""
    if services.host.ledger.of(vm.id).of():
        return VmState.FAILED
    if files.is_saved(services.layout, vm):
        services.vms.doors.let_go(vm.id)  # whoever waits there is told by that
        listen(services, vm)
        return VmState.SUSPENDED
    files.clear(services.layout, vm.id)
    return VmState.STOPPED


def cannot_wake(services: Services, vm: Vm, error: BangerError) -> BangerError:
    """The same error, with the way out if the VM stays suspended."""
    if error.kind is ErrorKind.CANCELLED or not files.is_saved(services.layout, vm):
        return error
    hint = f"to boot it from its disk, without what is in its memory: banger vm start --cold {vm.name}"
    return BangerError(
        error.kind, f'VM "{vm.name}" cannot be resumed', subject=vm.name,
        cause=": ".join(filter(None, (error.message, error.cause))), hint=hint,
    )  # fmt: skip


def _check(vm: Vm) -> VmState:
    """The state that it has, if it may be suspended from there."""
    if vm.state is VmState.RUNNING or (vm.state is VmState.PAUSED and vm.paused_by == "user"):
        return vm.state
    hint = {VmState.STOPPED: "start", VmState.PAUSED: "resume"}.get(vm.state, "show")
    raise BangerError(
        ErrorKind.CONFLICT, f'VM "{vm.name}" is {vm.state.value}, not running', subject=vm.name,
        cause=vm.reason, hint=f"banger vm {hint} {vm.name}",
    )  # fmt: skip


def _save(services: Services, vm: Vm, machine: Machine, by: str, token: CancelToken) -> None:
    layout = services.layout
    place = files.begin(layout, vm)
    saved = save_machine(services, vm, machine, place, lambda: None, token)
    snapshot = replace(snapshot_row(SavedVm(vm, saved), place, vm.name, vm.owner_uid), id=vm.id)  # none that is listed
    files.finish(layout, vm, Suspension(snapshot, by, vm.started_at))


def _go_on(services: Services, keeper: VmKeeper, vm: Vm, machine: Machine) -> None:
    """After a failure: what was saved is void before the guest does anything."""
    files.clear(services.layout, vm.id)
    if vm.state is VmState.RUNNING:
        try:
            driver_of(services, vm).resume(machine)
        except BangerError:  # it has ended, and its end is reconciled next
            if services.vms.vmms.processes.is_alive(machine.identity):
                raise
    keeper.save(vm)
    if vm.state is VmState.RUNNING:
        vm_clock.set_right(services.vms, vm)
