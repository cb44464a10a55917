"""Saving a VM as it is at one instant, in its owner's thread: what a snapshot of it is made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from banger.actors import vm_clock
from banger.actors.messages import SavedVm
from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.actors.vm_machines import driver_of, machine_of
from banger.actors.vm_teardown import SAVER, recorded_identity
from banger.core.cancel import CancelToken
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity, Vm, VmState
from banger.core.names import saver_marker
from banger.core.operation import Operation
from banger.core.origin import disk_in, machine_in
from banger.core.ports import AgentCarrier, Drive, Machine, SavedMachine


def save_vm(services: Services, vm: Vm, into: Path, operation: Operation) -> SavedVm:
    """Copy the disk of a stopped VM, or save a running one's machine and copy its disk while that stands still.

    Raises:
        BangerError: before anything is touched, ``conflict`` for a VM that is neither or that has more than its own
            disk, and ``unavailable`` if its machine cannot be saved; what storage and VMM drivers raise. The VM is as
            it was before.
    """
    _check_own(services, vm)
    if vm.state is VmState.STOPPED:
        with operation.step("copy disk"):
            _freeze(services, vm, into, operation)
        return SavedVm(vm, None)
    machine = savable_machine(services, vm, f"its disk alone can, once it is stopped: banger vm stop {vm.name}")

    stood = time.monotonic()

    def standing() -> None:
        nonlocal stood
        stood = time.monotonic()
        with operation.step("copy disk"):
            _freeze(services, vm, into, operation)

    with operation.step("save machine"):
        saved = SavedVm(vm, save_machine(services, vm, machine, into, standing, operation.haste))
        if time.monotonic() - stood > vm_clock.SHORT_S:
            vm_clock.set_right(services.vms, vm, operation.haste)
        return saved


def _check_own(services: Services, vm: Vm) -> None:
    if vm.state not in (VmState.RUNNING, VmState.STOPPED):
        hint = {VmState.PAUSED: "resume", VmState.SUSPENDED: "start"}.get(vm.state, "show")
        raise BangerError(
            ErrorKind.CONFLICT, f'VM "{vm.name}" is {vm.state.value}, neither running nor stopped', subject=vm.name,
            cause=vm.reason, hint=f"banger vm {hint} {vm.name}",
        )  # fmt: skip
    check_whole(vm)
    for capability in services.host.capabilities:
        if capability.applies(vm) and Drive in capability.devices(vm):
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" cannot be saved', subject=vm.name,
                cause=f"it has a disk that is not its own ({capability.name}), and no two VMs can have that",
                hint="take snapshots of VMs that were made without it",
            )  # fmt: skip


def check_whole(vm: Vm) -> None:
    """Raise ``conflict`` for a VM that has no image or no kernel, which a store that was put back may have lost."""
    if not (vm.image_id and vm.kernel_id):
        raise BangerError(
            ErrorKind.CONFLICT, f'VM "{vm.name}" was not created completely', subject=vm.name,
            hint=f"banger vm delete {vm.name}",
        )  # fmt: skip


def savable_machine(services: Services, vm: Vm, hint: str) -> Machine:
    """The machine of a VM that runs. Raises ``conflict`` if it ended, ``unavailable`` if it cannot be saved."""
    identity = recorded_identity(services, vm.id)
    if identity is None:
        raise _ended(vm)
    machine = machine_of(services, vm, identity)
    _check_alive(services, vm, machine)
    driver = driver_of(services, vm)
    if obstacle := driver.save_obstacle(machine):
        raise BangerError(
            ErrorKind.UNAVAILABLE, f'the machine of VM "{vm.name}" cannot be saved', subject=vm.name, cause=obstacle,
            hint=hint,
        )  # fmt: skip
    return machine


def _check_alive(services: Services, vm: Vm, machine: Machine) -> None:
    if not services.vms.vmms.processes.is_alive(machine.identity):
        raise _ended(vm)


def _ended(vm: Vm) -> BangerError:
    hint = f"banger vm why {vm.name}"
    return BangerError(ErrorKind.CONFLICT, f'VM "{vm.name}" has just ended', subject=vm.name, hint=hint)


def save_machine(
    services: Services, vm: Vm, machine: Machine, into: Path, standing: Callable[[], None], token: CancelToken
) -> SavedMachine:
    """Save it, with a helper that is in the ledger; ``standing`` is called while it stands still."""
    ledger = services.host.ledger.of(vm.id)
    marker, driver = saver_marker(vm.id), driver_of(services, vm)
    has_stood = False

    def stands() -> None:
        nonlocal has_stood
        has_stood = True
        crashpoint("vm.save:standing")
        _check_alive(services, vm, machine)
        standing()

    def spawned(identity: ProcessIdentity) -> None:
        crashpoint("vm.save:saver-spawned")
        ledger.activate(SAVER, marker, asdict(identity))

    ledger.intend(SAVER, marker)
    crashpoint("vm.save:saver-intended")
    try:
        saved = driver.save(machine, machine_in(into), stands, spawned, token)
    finally:
        ledger.strike(SAVER)
        if has_stood and driver.agent_carrier is AgentCarrier.VSOCK:  # the guest has been told that they ended, not we
            services.vms.guests.disconnect(vm.id)
    crashpoint("vm.save:saved")
    return saved


def _freeze(services: Services, vm: Vm, into: Path, operation: Operation) -> None:
    storage = services.host.storages.named(vm.storage)
    storage.freeze(vm.id, VmFiles(services.layout, vm.id).directory, disk_in(into), operation.haste)
    crashpoint("vm.save:disk-copied")
