"""Reconciling one VM: making its row, ledger and host agree after an exit or a restart of the daemon."""

from __future__ import annotations

from dataclasses import dataclass

from loguru import logger

from banger.actors import suspended_files
from banger.actors.incident_recorder import IncidentRecorder, cause_of_exit
from banger.actors.kept_disks import as_before
from banger.actors.services import Services
from banger.actors.vm_keeper import VmKeeper
from banger.actors.vm_machines import condition_of, driver_of, machine_of
from banger.actors.vm_teardown import SAVER, end_saver, find_process
from banger.core import clock, codec
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError
from banger.core.exits import ExitRecord
from banger.core.models import ExitReason, ProcessIdentity, Restarts, Vm, VmState
from banger.core.operation import Operation
from banger.core.ports import Condition, Health
from banger.core.reconcile_action import ReconcileAction, choose_action
from banger.core.restarting import after_end
from banger.host.disk_guard import stalled


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look at a VM's row, ledger and host saw."""

    action: ReconcileAction
    identity: ProcessIdentity | None
    condition: Condition


def observe(services: Services, vm: Vm) -> Observation:
    """What reconciling this VM would do now. Changes nothing."""
    handles = services.host.ledger.of(vm.id).of()
    identity, is_alive = find_process(services, [handle for handle in handles if handle.kind == "process"])
    condition = _condition_if_known(services, vm, identity) if is_alive else Condition()
    action = choose_action(
        vm.state,
        has_handles=bool(handles),
        has_process=identity is not None,
        goes_on=is_alive and not _is_over(condition),
        abandoned=is_abandoned(services, vm),
        is_saved=suspended_files.is_saved(services.layout, vm),
    )
    return Observation(action, identity, condition)


def is_abandoned(services: Services, vm: Vm) -> bool:
    """True for a VM that a session held which is over: one of a daemon that is gone."""
    return vm.attended and not services.vms.attendance.holds(vm.id)


def _condition_if_known(services: Services, vm: Vm, identity: ProcessIdentity | None) -> Condition:
    """How a VM's machine is; nothing bad is known of one whose driver this banger does not have."""
    try:
        return condition_of(services, vm, identity)
    except BangerError as error:
        logger.warning("{}: how its machine is cannot be told: {}", vm.name, error)
        return Condition()


def _is_over(condition: Condition) -> bool:
    """True for a machine that will not go on although its VMM lives."""
    return condition.health in (Health.BROKEN, Health.HALTED)


def standstill(vm: Vm, seen: Observation) -> str:
    """Why a VM will be taken for paused though its row says that it runs; empty if it will not."""
    return stalled(vm.name, seen.condition)[1] if seen.condition.is_stalled else ""


def recorded_vm(services: Services, vm_id: str) -> Vm | None:
    """What a VM's own file says of it, if that is whole and of this version's form."""
    try:
        vm = codec.from_plain(Vm, services.host.ledger.recorded(vm_id).vm, tolerant=True)
    except (BangerError, OSError):  # also of what is no VM's directory at all
        return None
    return vm if vm.id == vm_id else None


class VmReconciler:
    """Reconciles one VM, in its owner's thread."""

    def __init__(self, services: Services, keeper: VmKeeper) -> None:
        self._services = services
        self._keeper = keeper

    def run(self, vm: Vm, operation: Operation) -> Vm | None:
        """Do what :func:`observe` says, and tell as the operation's note; None if the VM is gone then."""
        if self._services.host.ledger.recover(vm.id):
            vm = self._brought_up_to_date(vm)
        vm = self._as_before_rewind(vm)
        seen = observe(self._services, vm)
        if seen.action is not ReconcileAction.NOTHING and vm.state in (VmState.CREATING, VmState.STARTING):
            IncidentRecorder(self._services, operation).interrupted(vm)
        match seen.action:
            case ReconcileAction.NOTHING:
                return vm
            case ReconcileAction.ERASE:
                operation.note(f"{vm.name}: half {'deleted' if vm.state == 'deleting' else 'created'}, removed")
                self._keeper.erase(vm)
                return None
            case ReconcileAction.REMOVE_ABANDONED:
                operation.note(f"{vm.name}: its session is over, removed")
                if vm.state in (VmState.RUNNING, VmState.PAUSED):
                    IncidentRecorder(self._services, operation).if_ended(vm)
                self._keeper.erase(vm)
                return None
            case ReconcileAction.CLEAN:
                operation.note(f"{vm.name}: half started, cleaned up")
                words, after = "the daemon ended while it was starting", self._after(vm, ExitReason.NONE)
                return self._keeper.down(vm, ExitReason.NONE, words, operation, after)
            case ReconcileAction.ADOPT:
                return self._adopt(vm, seen)
            case ReconcileAction.FINISH_SUSPEND:
                operation.note(f"{vm.name}: was {vm.state.value} when the daemon ended, suspended")
                return self._keeper.down(vm, ExitReason.NONE, "", operation, vm.restarts, state=VmState.SUSPENDED)
            case ReconcileAction.GIVE_UP:
                operation.note(f"{vm.name}: what it was suspended to is not there, stopped")
                words = "what it was suspended to is not there"
                return self._keeper.down(vm, ExitReason.NONE, words, operation)
            case ReconcileAction.FINISH_STOP:
                # Nobody waits for a start or a stop that an earlier daemon began: finish it the safe way.
                operation.note(f"{vm.name}: was {vm.state.value} when the daemon ended, stopped")
                words = f"the daemon ended while it was {vm.state.value}"
                return self._keeper.down(vm, ExitReason.KILLED, words, operation, self._after(vm, ExitReason.KILLED))
            case ReconcileAction.RECORD_EXIT:
                return self._record_exit(vm, seen, operation)

    def _as_before_rewind(self, vm: Vm) -> Vm:
        """A rewind that the daemon did not survive is taken back with all else that the VM has on the host."""
        before = as_before(self._services, vm)
        return vm if before is vm else self._keeper.save(before)

    def _brought_up_to_date(self, vm: Vm) -> Vm:
        """A row that is older than a process that runs is given what the VM's own file says about that process."""
        recorded = recorded_vm(self._services, vm.id)
        identity, is_alive = find_process(self._services, self._services.host.ledger.of(vm.id).of("process"))
        runs = is_alive and identity is not None and recorded is not None and recorded.pid == identity.pid
        if not runs or recorded is None or vm.state in (VmState.CREATING, VmState.DELETING):
            return vm
        return self._keeper.save(
            vm,
            state=recorded.state,
            reason=recorded.reason,
            exit_reason=recorded.exit_reason,
            started_at=recorded.started_at,
            stopped_at=None,
            address=recorded.address,
            network=recorded.network,
            network_reason=recorded.network_reason,
            ports=recorded.ports,
            accelerator=recorded.accelerator,
            vmm=recorded.vmm,
            vmm_reason=recorded.vmm_reason,
            vmm_version=recorded.vmm_version,
            pid=recorded.pid,
            timings=recorded.timings,
            restarts=recorded.restarts,
        )

    def _adopt(self, vm: Vm, seen: Observation) -> Vm:
        assert seen.identity is not None
        self._services.vms.watcher.watch(vm.id, seen.identity)  # first: whatever else fails, its end is heard of
        self._end_save(vm, seen.identity)
        if vm.state is VmState.SUSPENDING:  # which was given up, like any save
            vm = self._keeper.save(vm, state=VmState.PAUSED if vm.paused_by else VmState.RUNNING)
        suspended_files.clear(self._services.layout, vm.id)
        vm = self._standing_still(vm, seen.identity, seen.condition)
        for one in self._services.host.capabilities:
            if one.applies(vm):
                one.adopted(vm, self._services.host.ledger.of(vm.id))
        return vm

    def _end_save(self, vm: Vm, identity: ProcessIdentity) -> None:
        """A save that the daemon did not survive is given up: its machine may stand still at any moment from now on."""
        ledger = self._services.host.ledger.of(vm.id)
        if not ledger.of(SAVER):
            return
        end_saver(self._services, ledger)
        driver_of(self._services, vm).resume(machine_of(self._services, vm, identity))
        ledger.strike(SAVER)

    def _standing_still(self, vm: Vm, identity: ProcessIdentity, condition: Condition) -> Vm:
        """Row and machine agree whether it runs: the row's word counts, but for a machine that cannot write."""
        if vm.state is VmState.PAUSED:  # the row is written before the machine stands still
            driver_of(self._services, vm).pause(machine_of(self._services, vm, identity))
            return vm
        if condition.is_stalled:
            by, reason = stalled(vm.name, condition)
            logger.warning("{}", reason)
            return self._keeper.save(vm, state=VmState.PAUSED, paused_by=by, reason=reason)
        if condition.health is Health.PAUSED:  # a pause was given up halfway
            driver_of(self._services, vm).resume(machine_of(self._services, vm, identity))
        return vm

    def _record_exit(self, vm: Vm, seen: Observation, operation: Operation) -> Vm:
        record = self._cause(vm, seen)
        operation.note(f"{vm.name}: {record.words}")
        if vm.state in (VmState.RUNNING, VmState.PAUSED):
            IncidentRecorder(self._services, operation).ended(vm, record)
        after = self._after(vm, record.reason)
        vm = self._keeper.down(vm, record.reason, record.words, operation, after)
        crashpoint("vm.reconcile:exit-recorded")
        if vm.spec.ephemeral and after.due_at is None:
            self._keeper.erase(vm)
        return vm

    def _after(self, vm: Vm, reason: ExitReason) -> Restarts:
        return after_end(vm, reason, clock.now())

    def _cause(self, vm: Vm, seen: Observation) -> ExitRecord:
        if seen.condition.health is Health.HALTED:
            return ExitRecord(ExitReason.GUEST_POWEROFF, seen.condition.words)
        if seen.condition.health is Health.BROKEN:
            kernel = self._services.store.kernels.get(vm.kernel_id)
            driver_of(self._services, vm).engines.forget(kernel.digest if kernel else "")
            return ExitRecord(ExitReason.KVM_FAILURE, seen.condition.words)
        assert seen.identity is not None
        return cause_of_exit(self._services, vm, seen.identity)
