"""Pausing a VM and letting it go on, in its owner's thread."""

from __future__ import annotations

import time

from banger.actors import vm_clock
from banger.actors.messages import PauseVm, ResumeVm
from banger.actors.services import Services
from banger.actors.vm_keeper import VmKeeper
from banger.actors.vm_machines import condition_of, driver_of, machine_of
from banger.actors.vm_teardown import recorded_identity
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity, Vm, VmState
from banger.core.operation import Operation
from banger.core.ports import Health
from banger.core.states import check_move
from banger.host.disk_guard import DISK, stalled

#: How long, in seconds, a machine that is to go on is watched: its write is tried again at once, on a busy host a bit
#: later. What comes later still is found by the housekeeper.
_RETRY_S, _RETRY_POLL_S = 0.4, 0.05


def pause(services: Services, keeper: VmKeeper, vm: Vm, command: PauseVm, operation: Operation) -> Vm:
    """Stop its CPUs. Raises ``conflict``, and what the driver raises: then it runs on."""
    if vm.state is VmState.PAUSED:
        if command.by != "user" or vm.paused_by == "user":
            return vm
        return keeper.save(vm, paused_by="user", reason=command.reason)  # not the guard's to resume any more
    check_move(vm, VmState.PAUSED)
    identity = recorded_identity(services, vm.id)
    assert identity is not None
    paused = keeper.save(vm, state=VmState.PAUSED, paused_by=command.by, reason=command.reason)
    crashpoint("vm.pause:written")
    try:
        driver_of(services, vm).pause(machine_of(services, vm, identity), operation.token)
    except BangerError:
        keeper.save(vm)  # it runs on, as far as anybody knows
        raise
    return paused


def resume(services: Services, keeper: VmKeeper, vm: Vm, command: ResumeVm, operation: Operation) -> Vm:
    """Let it go on. Raises ``conflict``; ``exhausted`` or ``unavailable`` for one that stands still again at once."""
    if command.by not in ("user", vm.paused_by):
        return vm
    if vm.state not in (VmState.PAUSED, VmState.RUNNING):  # a start half done may become running, but not like this
        raise BangerError(
            ErrorKind.CONFLICT, f'VM "{vm.name}" is {vm.state.value}, not paused', subject=vm.name,
            hint=f"banger vm why {vm.name}",
        )  # fmt: skip
    identity = recorded_identity(services, vm.id)
    before = condition_of(services, vm, identity)
    if identity is None or (vm.state is VmState.RUNNING and before.health is Health.RUNS):
        return vm
    driver_of(services, vm).resume(machine_of(services, vm, identity), operation.token)
    crashpoint("vm.resume:runs")
    if before.is_stalled:
        _check_goes_on(services, keeper, vm, identity, command, operation)
    resumed = keeper.save(vm, state=VmState.RUNNING, paused_by="", reason="")
    vm_clock.set_right(services.vms, resumed, operation.haste)
    return resumed


def _check_goes_on(
    services: Services, keeper: VmKeeper, vm: Vm, identity: ProcessIdentity, command: ResumeVm, operation: Operation
) -> None:
    """A machine that waited for the host to take a write stands still again at once if it does not.

    Raises:
        BangerError: ``exhausted`` or ``unavailable``; the row says why it is paused. What the guard could not help
            although there was room, it does not try again.
    """
    until = time.monotonic() + _RETRY_S
    while not (condition := condition_of(services, vm, identity)).is_stalled:
        if time.monotonic() > until:
            return
        operation.haste.wait(_RETRY_POLL_S)
        operation.haste.raise_if_cancelled()
    by, reason = stalled(vm.name, condition)
    keeper.save(vm, state=VmState.PAUSED, paused_by=by if command.by == "user" else DISK, reason=reason)
    has_room = condition.health is not Health.NO_ROOM
    raise BangerError(
        ErrorKind.UNAVAILABLE if has_room else ErrorKind.EXHAUSTED,
        f'VM "{vm.name}" cannot go on', subject=vm.name, cause=condition.words,
        hint="dmesg | grep -i 'i/o error'" if has_room else "banger system df",
    )  # fmt: skip
