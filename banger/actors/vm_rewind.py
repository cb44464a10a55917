"""Rewinding: a VM goes on from a snapshot of itself, in its place: with its id, name, ports, addresses and keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from banger.actors.building import building
from banger.actors.incident_recorder import IncidentRecorder
from banger.actors.kept_disks import KIND, change_disk, give_up, put_back_step
from banger.actors.messages import RewindVm
from banger.actors.origins import artifacts_of, driver_for_origin, kept
from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.actors.vm_keeper import VmKeeper
from banger.actors.vm_suspend import give_up as give_up_suspended
from banger.core import lookup
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.identity import RenewalEvent
from banger.core.models import NO_RESTARTS, ExitReason, Snapshot, Vm, VmState
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.host.cascade import run_all

#: What sessions in it end with.
REWOUND = "the VM was rewound"
_FROM = (VmState.RUNNING, VmState.PAUSED, VmState.STOPPED, VmState.SUSPENDED, VmState.FAILED)


class VmRewind:
    """One rewind, in the VM's owner's thread.

    The VM's own disk is kept until the machine that goes on answers as itself, and put back if it does not. So does a
    reconcile after a crash: the VM has either disk whole, and is stopped.
    """

    def __init__(
        self,
        services: Services,
        keeper: VmKeeper,
        incidents: IncidentRecorder,
        start: Callable[[Vm, Operation, Origin], Vm],
    ) -> None:
        """``start`` is the owner's: from the saved machine if there is one, otherwise with a boot."""
        self._services = services
        self._keeper = keeper
        self._incidents = incidents
        self._start = start

    def run(self, vm: Vm, command: RewindVm, operation: Operation) -> Vm:
        """Do it. The VM runs afterwards if it ran when it was saved, or did until now.

        Raises:
            BangerError: before anything is touched, ``not_found``, ``conflict``, ``invalid`` or ``unavailable`` for a
                snapshot that it cannot go on from; later, what the start raises: the VM is stopped then, with the disk
                that it had.
        """
        services = self._services
        snapshot = self._snapshot(vm, command)
        origin = Origin(snapshot, services.layout.snapshot_dir(snapshot.id), RenewalEvent.REWIND)
        with building(services, "rewind", operation) as staged, kept(services, origin, operation):
            self._check(vm, origin)
            with operation.step("copy disk"):
                services.host.storages.named(vm.storage).fork(origin.disk, staged, operation)
            crashpoint("vm.rewind:disk-made")
            runs = origin.machine is not None or vm.state in (VmState.RUNNING, VmState.PAUSED)
            down = self._end(vm, operation)
            crashpoint("vm.rewind:down")
            spec = replace(vm.spec, disk_mib=snapshot.spec.disk_mib)
            rewound = replace(down, spec=spec, origin_snapshot=snapshot.id, restarts=NO_RESTARTS)
            try:
                change_disk(services, down, staged)
                return self._start(rewound, operation, origin) if runs else self._stay_down(rewound)
            except BaseException as error:
                self._keep_old(down, error)
                raise

    # -- beforehand ------------------------------------------------------------------------------------

    def _snapshot(self, vm: Vm, command: RewindVm) -> Snapshot:
        """The one that was asked for, or the newest one of this VM."""
        snapshots = self._services.store.snapshots
        if command.snapshot_id:
            found = snapshots.get(command.snapshot_id)
            if found is None:
                raise lookup.not_found(command.snapshot_name, "snapshot", [])
            if found.vm_id != vm.id:
                raise BangerError(
                    ErrorKind.CONFLICT, f'snapshot "{found.name}" is not one of VM "{vm.name}"', subject=found.name,
                    cause=f'it was taken of VM "{found.vm_name}" ({found.vm_id})',
                    hint=f"a VM of its own goes on from it: banger vm restore {found.name}",
                )  # fmt: skip
            return found
        own = [one for one in snapshots.all() if one.vm_id == vm.id]
        if not own:
            raise BangerError(
                ErrorKind.NOT_FOUND, f'there is no snapshot of VM "{vm.name}"', subject=vm.name,
                hint=f"banger vm snapshot create {vm.name}",
            )  # fmt: skip
        return own[-1]

    def _check(self, vm: Vm, origin: Origin) -> None:
        """Refuse what is known not to work."""
        if vm.state not in _FROM:
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" is {vm.state.value}: it cannot be rewound', subject=vm.name,
                hint=f"banger vm show {vm.name}",
            )  # fmt: skip
        if vm.attended:
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" cannot be rewound', subject=vm.name,
                cause="the session that holds it would end, and the VM with it",
                hint=f"banger vm restore {origin.snapshot.name}",
            )  # fmt: skip
        image, kernel = artifacts_of(self._services, origin)
        needed = [origin.disk, self._services.layout.image_rootfs(image), self._services.layout.kernel_dir(kernel.id)]
        machine = origin.machine
        if machine is not None:
            needed += [machine.memory, machine.devices]
        if missing := [path for path in needed if not path.exists()]:
            raise _broken(origin.snapshot, missing[0])
        if origin.snapshot.storage != vm.storage:
            raise BangerError(
                ErrorKind.INVALID, f'snapshot "{origin.snapshot.name}" has another kind of disk than VM "{vm.name}"',
                subject=vm.name, cause=f"{origin.snapshot.storage}, not {vm.storage}",
            )  # fmt: skip
        choice = driver_for_origin(self._services, vm, origin, kernel.digest)
        if machine is not None:
            choice.driver.check_saved(machine, vm.name)

    # -- from here on the VM is another one ------------------------------------------------------------

    def _end(self, vm: Vm, operation: Operation) -> Vm:
        """End what runs, as ``vm kill`` does."""
        if vm.state is VmState.SUSPENDED:  # no later disk may meet that memory
            return give_up_suspended(self._services, self._keeper, vm, ExitReason.KILLED)
        if vm.state is VmState.STOPPED:
            return vm
        self._services.vms.guests.disconnect(vm.id, REWOUND)
        if vm.state is not VmState.FAILED:
            self._incidents.if_ended(vm)
            vm = self._keeper.moved(vm, VmState.STOPPING)
        return self._keeper.down(vm, ExitReason.KILLED, REWOUND, operation)

    def _keep_old(self, down: Vm, error: BaseException) -> None:
        """The start has put the disk back with all else that it had made, unless it did not come so far."""
        ledger = self._services.host.ledger.of(down.id)
        if ledger.of(KIND) and not ledger.of("process"):
            try:
                run_all(put_back_step(down, VmFiles(self._services.layout, down.id).directory, ledger, needs=()))
            except ExceptionGroup as failures:
                error.add_note(str(failures.exceptions[0]))
        if isinstance(error, BangerError) and not ledger.of(KIND):
            error.cause = "; ".join(filter(None, (error.cause, "the VM is stopped, with the disk that it had")))
        now = self._services.store.vms.get(down.id)
        if now is not None:
            self._keeper.save(now, spec=down.spec, origin_snapshot=down.origin_snapshot)

    def _stay_down(self, rewound: Vm) -> Vm:
        directory = VmFiles(self._services.layout, rewound.id).directory
        give_up(directory, self._services.host.ledger.of(rewound.id), self._services.layout)
        return self._keeper.save(rewound, state=VmState.STOPPED, reason="")


def _broken(snapshot: Snapshot, missing: Path) -> BangerError:
    return BangerError(
        ErrorKind.INVALID, f'snapshot "{snapshot.name}" is not whole', subject=snapshot.name,
        cause=f"{missing} is missing", hint=f"banger snapshot delete {snapshot.name}",
    )  # fmt: skip
