"""The owner of one VM: create, start, stop, kill, delete, and reconcile after an exit or a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loguru import logger

from banger.actors import suspended_files
from banger.actors.base import OwnerActor
from banger.actors.disk_use import check_lendable
from banger.actors.first_start import FirstStart
from banger.actors.incident_recorder import LOST_S, IncidentRecorder
from banger.actors.messages import (
    Command,
    CreateVm,
    DeleteVm,
    GrowVm,
    KeepVm,
    KillVm,
    PauseVm,
    ReconcileVm,
    RestartVm,
    ResumeVm,
    RewindVm,
    SaveVm,
    StartVm,
    StopVm,
    SuspendVm,
    UseDisk,
    VmCommand,
    WakeVm,
)
from banger.actors.origins import artifacts_of, driver_for_origin, kept
from banger.actors.vm_bringup import Ingredients
from banger.actors.vm_files import VmFiles
from banger.actors.vm_keeper import VmKeeper
from banger.actors.vm_machines import condition_of, driver_of, likely_driver, machine_of, wait_over
from banger.actors.vm_pausing import pause, resume
from banger.actors.vm_reconcile import VmReconciler
from banger.actors.vm_rewind import VmRewind
from banger.actors.vm_saving import save_vm
from banger.actors.vm_sizes import with_sizes
from banger.actors.vm_start import VmStart
from banger.actors.vm_suspend import after_failed_start as state_after
from banger.actors.vm_suspend import cannot_wake, give_up, origin_of, suspend
from banger.actors.vm_teardown import recorded_identity
from banger.core import clock
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.identity import RenewalEvent
from banger.core.models import NO_RESTARTS, ExitReason, Image, Kernel, ProcessIdentity, Restarts, Vm, VmState
from banger.core.names import made_up_name
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.core.ports import Health
from banger.core.restarting import after_failed_start, is_due
from banger.core.states import DOWN, LIVE, check_move, check_running
from banger.core.templates import is_half_begun, is_untouched
from banger.core.wire.vm_checks import check_disk_mib, check_spec
from banger.host.resources import check_memory

#: How often another name is made up for a VM.
_NAMES_TO_TRY = 10


class VmActor(OwnerActor):
    """Owns one VM. Its row is read anew for every command: memory is never ahead of the disk."""

    def handle(self, command: Command, operation: Operation) -> Any:
        """Dispatch."""
        self._keeper = VmKeeper(self.services, self.key.name)
        self._incidents = IncidentRecorder(self.services, operation)
        self._first_start = FirstStart(self.services, self._keeper, self._start_vm)
        match command:
            case CreateVm():
                return self._create(command, operation)
            case StartVm():
                return self._start_command(self._keeper.load(command.vm_name), command, operation)
            case StopVm():
                return self._stop_vm(self._keeper.load(command.vm_name), command.timeout_s, operation)
            case RestartVm():
                return self._restart(self._keeper.load(command.vm_name), command.timeout_s, operation)
            case KillVm():
                return self._kill_vm(self._keeper.load(command.vm_name), operation)
            case DeleteVm():
                return self._delete(self._keeper.load(command.vm_name), command, operation)
            case ReconcileVm():
                vm = self.services.store.vms.get(command.vm_id)
                return vm and VmReconciler(self.services, self._keeper).run(vm, operation)
            case KeepVm():
                return self._keep(self._keeper.load(command.vm_name))
        assert isinstance(command, VmCommand)
        return self._change(self._keeper.load(command.vm_name), command, operation)

    def _change(self, vm: Vm, command: VmCommand, operation: Operation) -> Any:
        """Dispatch what neither starts nor ends it for good."""
        match command:
            case SuspendVm():
                return suspend(self.services, self._keeper, vm, command, operation)
            case WakeVm():
                return self._wake(vm, operation)
            case PauseVm():
                return pause(self.services, self._keeper, vm, command, operation)
            case ResumeVm():
                return resume(self.services, self._keeper, vm, command, operation)
            case GrowVm():
                return self._grow(vm, command.disk_mib, operation)
            case SaveVm():
                return save_vm(self.services, vm, command.into, operation)
            case RewindVm():
                return VmRewind(self.services, self._keeper, self._incidents, self._start_vm).run(
                    vm, command, operation
                )
            case UseDisk():
                return self._lend_disk(vm, command, operation)
        raise TypeError(f"a VM's owner cannot do {command.verb}")

    # -- up --------------------------------------------------------------------------------------------

    def _create(self, command: CreateVm, operation: Operation) -> Vm:
        services, origin = self.services, command.origin
        check_spec(command.spec)
        check_memory(command.spec.memory_mib)  # before anything is fetched
        vm = Vm(
            id=command.vm_id,
            name=command.vm_name,
            spec=command.spec,
            state=VmState.CREATING,
            created_at=clock.now(),
            owner_uid=command.owner_uid,
            storage=origin.snapshot.storage if origin else services.host.storages.chosen(command.spec.storage).name,
            attended=command.attended,
            origin_snapshot=origin.snapshot.id if origin and origin.event is not RenewalEvent.FORK else "",
            forked_from=origin.snapshot.vm_name if origin else "",
            makes_template=command.makes_template,
        )
        # Before anything is made.
        choice = driver_for_origin(services, vm, origin) if command.start else likely_driver(services, vm)
        vm = replace(vm, vmm=choice.driver.name, vmm_reason=choice.reason)
        vm = self._claim_name(vm, is_made_up=command.is_name_made_up)
        crashpoint("vm.create:name-claimed")
        try:
            with kept(services, origin, operation):
                return self._make(vm, command, operation)
        except BaseException as error:
            self._incidents.create_failed(self.services.store.vms.get(vm.id) or vm, error)
            self._undo_create(vm, error)
            raise

    def _make(self, vm: Vm, command: CreateVm, operation: Operation) -> Vm:
        services, origin = self.services, command.origin
        image, kernel = artifacts_of(services, origin) if origin else self._artifacts(vm, operation)
        crashpoint("vm.create:artifacts-here")
        spec = with_sizes(vm.spec, image.defaults, services.config)
        check_memory(spec.memory_mib)
        vm = self._keeper.save(vm, image_id=image.id, kernel_id=kernel.id, spec=spec)
        VmFiles(services.layout, vm.id).make()
        if command.start and origin is None:
            return self._first_start.run(vm, image, kernel, operation)
        vm = self._first_start.make_disk(vm, image, origin, operation)
        return self._start_vm(vm, operation, origin) if command.start else vm

    def _claim_name(self, vm: Vm, *, is_made_up: bool) -> Vm:
        """Insert the row. Many may be asked for at once, and two of them may have been given the same name."""
        vms = self.services.store.vms
        for _ in range(_NAMES_TO_TRY if is_made_up else 0):
            try:
                vms.insert(vm)
            except BangerError as error:
                if error.kind is not ErrorKind.ALREADY_EXISTS:
                    raise
                vm = replace(vm, name=made_up_name({other.name for other in vms.all()}))
            else:
                return vm
        vms.insert(vm)
        return vm

    def _undo_create(self, vm: Vm, error: BaseException) -> None:
        try:
            self._keeper.erase(self.services.store.vms.get(vm.id) or vm)
        except Exception as failure:  # noqa: BLE001  # the first error is the one to report
            error.add_note(f"undoing the creation failed: {failure}")

    def _artifacts(self, vm: Vm, operation: Operation) -> tuple[Image, Kernel]:
        """Image and kernel of a VM, brought here if they are missing."""
        resolver = self.services.vms.resolver
        image = resolver.image(vm.spec.image, vm.owner_uid)
        if not isinstance(image, Image):
            image = self.ask_owner(image, operation)
        assert isinstance(image, Image)
        wanted = vm.spec.kernel
        kernel = resolver.kernel(wanted, vm.owner_uid) if wanted else resolver.kernel_of(image, vm.owner_uid)
        if not isinstance(kernel, Kernel):
            kernel = self.ask_owner(kernel, operation)
        assert isinstance(kernel, Kernel)
        return image, kernel

    def _start_command(self, vm: Vm, command: StartVm, operation: Operation) -> Vm:
        """Start by hand, which forgets what banger did by itself, or by banger, unless somebody thought better."""
        if command.cold and vm.state is VmState.SUSPENDED:
            vm = give_up(self.services, self._keeper, vm, ExitReason.NONE)
        if not command.again and vm.restarts != NO_RESTARTS:
            vm = self._keeper.save(vm, restarts=NO_RESTARTS)
        return vm if command.again and not is_due(vm, clock.now()) else self._begin(vm, operation)

    def _begin(self, vm: Vm, operation: Operation) -> Vm:
        """Start, perhaps for the first time."""
        image, kernel = self.services.store.images.get(vm.image_id), self.services.store.kernels.get(vm.kernel_id)
        is_first = is_untouched(vm) or is_half_begun(vm)
        if image is None or kernel is None or not is_first:
            return self._start_vm(vm, operation)
        return self._first_start.run(vm, image, kernel, operation)

    def _wake(self, vm: Vm, operation: Operation) -> Vm:
        vm = self._start_vm(vm, operation) if vm.state is VmState.SUSPENDED else vm
        check_running(vm)
        return vm

    def _start_vm(self, vm: Vm, operation: Operation, origin: Origin | None = None) -> Vm:
        if vm.state is VmState.RUNNING and self._keeper.is_alive(vm):
            return vm
        check_move(vm, VmState.STARTING)
        image = self.services.store.images.get(vm.image_id)
        kernel = self.services.store.kernels.get(vm.kernel_id)
        if image is None or kernel is None:
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" was not created completely', subject=vm.name,
                hint=f"banger vm delete {vm.name}",
            )  # fmt: skip
        vm = replace(vm, network="", network_reason="")  # where it is, is decided anew
        try:
            return self._brought_up(vm, image, kernel, operation, origin)
        except BangerError as error:
            raise cannot_wake(self.services, vm, error) from error

    def _brought_up(self, vm: Vm, image: Image, kernel: Kernel, operation: Operation, origin: Origin | None) -> Vm:
        origin = origin or origin_of(self.services, vm)
        choice = driver_for_origin(self.services, vm, origin, kernel.digest)
        vm = self._keeper.save(
            vm,
            state=VmState.STARTING,
            reason="",
            exit_reason=ExitReason.NONE,
            vmm=choice.driver.name,
            vmm_reason=choice.reason,
            vmm_version=choice.driver.version(),
            from_template=origin.template if origin else "",
        )
        what = Ingredients(vm, image, kernel, choice.driver, origin)
        start = VmStart(self.services, what, operation, self._incidents)
        try:
            vm = start.run()
        except BaseException as error:
            self._start_failed(vm, error)
            raise
        crashpoint("vm.start:up")
        vm = self._keeper.save(
            vm,
            state=VmState.RUNNING,
            started_at=clock.now(),
            stopped_at=None,
            timings=operation.steps,
            restarts=replace(vm.restarts, due_at=None),
        )
        self.services.vms.watcher.watch(vm.id, start.identity)
        try:
            self.services.host.ledger.record(vm)
        except BangerError as error:  # only needed should its row be lost
            logger.warning("{}: that it runs is not in its ledger: {}", vm.name, error)
        suspended_files.clear(self.services.layout, vm.id)
        return vm

    def _start_failed(self, vm: Vm, error: BaseException) -> None:
        state = state_after(self.services, vm)
        reason = str(error.message) if isinstance(error, BangerError) else f"{type(error).__name__}: {error}"
        given_up = isinstance(error, BangerError) and error.kind is ErrorKind.CANCELLED  # the daemon stops, say
        after = vm.restarts if given_up else after_failed_start(vm, clock.now())
        self._keeper.save(vm, state=state, reason=reason, pid=0, ports=(), restarts=after)

    # -- down ------------------------------------------------------------------------------------------

    def _stop_vm(self, vm: Vm, timeout_s: float | None, operation: Operation) -> Vm:
        if vm.state in DOWN:
            return self._stays_down(vm)
        return self._stopped(vm, timeout_s, operation)

    def _stays_down(self, vm: Vm) -> Vm:
        """One that was to be started again is not, and one that was suspended does not go on."""
        if vm.state is VmState.SUSPENDED:
            return give_up(self.services, self._keeper, vm, ExitReason.REQUESTED)
        return vm if vm.restarts.due_at is None else self._keeper.save(vm, restarts=NO_RESTARTS)

    def _restart(self, vm: Vm, timeout_s: float | None, operation: Operation) -> Vm:
        """That it comes up again is written before it goes down: a daemon that ends in between is no reason not to."""
        if vm.state is VmState.SUSPENDED:  # its guest is to power off in order
            vm = self._start_vm(vm, operation)
        if vm.state in LIVE:
            coming = Restarts(due_at=clock.now())
            vm = self._stopped(self._keeper.save(vm, restarts=coming), timeout_s, operation, coming)
            crashpoint("vm.restart:down")
        return self._begin(self._keeper.save(vm, restarts=replace(NO_RESTARTS, due_at=vm.restarts.due_at)), operation)

    def _stopped(self, vm: Vm, timeout_s: float | None, operation: Operation, after: Restarts = NO_RESTARTS) -> Vm:
        identity = recorded_identity(self.services, vm.id)
        ended = self._incidents.if_ended(vm)
        was_paused = vm.state is VmState.PAUSED
        vm = self._keeper.moved(vm, VmState.STOPPING)
        crashpoint("vm.stop:begun")
        if identity is not None and identity.known and ended is None:
            try:
                if was_paused:  # a guest that stands still hears nothing
                    driver_of(self.services, vm).resume(machine_of(self.services, vm, identity), operation.haste)
                self._let_power_off(vm, identity, timeout_s, operation)
            except BangerError:
                # It may still hear, and end later: then it is reconciled.
                if self.services.vms.vmms.processes.is_alive(identity):
                    self._keeper.save(vm, state=VmState.RUNNING, paused_by="", reason="", restarts=NO_RESTARTS)
                    raise
        if ended is not None:
            return self._keeper.down(vm, ended.reason, ended.words, operation, after)
        return self._keeper.down(vm, ExitReason.REQUESTED, "", operation, after)

    def _let_power_off(self, vm: Vm, identity: ProcessIdentity, timeout_s: float | None, operation: Operation) -> None:
        """Have the guest power itself off, for as long as it may take, nobody wants it gone at once and somebody waits.

        Raises:
            BangerError: ``cancelled``: whoever asked for it has left.
        """
        if timeout_s is None:
            timeout_s = vm.spec.stop_timeout_s
        if timeout_s is None:
            timeout_s = self.services.config.seconds("vm.stop_timeout_s")
        if condition_of(self.services, vm, identity).health is Health.HALTED:
            return
        with operation.step("ask guest"):
            self._ask_to_power_off(vm, operation)
        with operation.step("wait for guest"):
            gone = wait_over(self.services, vm, identity, timeout_s, operation.haste)
        operation.token.raise_if_cancelled()
        if not gone:
            reason = operation.haste.reason or f"the guest did not power off within {timeout_s:g} s"
            condition = condition_of(self.services, vm, identity)
            operation.note(f"{reason}{f' ({condition.words})' if condition.is_stalled else ''}: killed")

    def _ask_to_power_off(self, vm: Vm, operation: Operation) -> None:
        """By banger's own channel; if the guest does not answer there, by its power button."""
        driver = driver_of(self.services, vm)
        try:
            by_reboot = not driver.has_power_switch
            self.services.vms.guests.power_off(vm, timeout_s=10.0, token=operation.haste, by_reboot=by_reboot)
        except BangerError as error:
            if error.kind in (ErrorKind.UNKNOWN_OUTCOME, ErrorKind.CANCELLED):
                return  # it heard, and went down before it could answer; or there is no time for asking
            logger.info("{}: not asked through the channel ({}), pressing the power button", vm.name, error)
            identity = recorded_identity(self.services, vm.id)
            if identity is not None:
                driver.power_down(machine_of(self.services, vm, identity), operation.haste)

    def _kill_vm(self, vm: Vm, operation: Operation) -> Vm:
        if vm.state in DOWN:
            return self._stays_down(vm)
        self._incidents.if_ended(vm)
        return self._keeper.down(self._keeper.moved(vm, VmState.STOPPING), ExitReason.KILLED, "", operation)

    def _delete(self, vm: Vm, command: DeleteVm, operation: Operation) -> dict[str, Any]:
        is_live = vm.state in LIVE and self._keeper.is_alive(vm)
        if not command.force and (is_live or vm.restarts.due_at is not None):
            state = vm.state.value if is_live else "being started again"
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" is {state}', subject=vm.name,
                hint=f"banger vm stop {vm.name}, or banger vm delete --force {vm.name}",
            )  # fmt: skip
        if vm.state in (VmState.RUNNING, VmState.PAUSED):
            self._incidents.if_ended(vm, LOST_S if command.lost else 0.0)
        with operation.step("delete"):
            self._keeper.erase(vm, keep_home=command.keep_home)
        return {"id": vm.id, "name": vm.name}

    def _keep(self, vm: Vm) -> Vm:
        vm = self._keeper.save(vm, attended=False)
        crashpoint("vm.keep:written")
        return vm

    # -- its disk ---------------------------------------------------------------------------------------

    def _lend_disk(self, vm: Vm, command: UseDisk, operation: Operation) -> object:
        """Nothing else is done to this VM until the work is over: this is its owner."""
        check_lendable(vm)
        crashpoint("vm.lend-disk:begun")
        return command.work(vm, self.services.layout.vm_dir(vm.id), operation)

    def _grow(self, vm: Vm, disk_mib: int, operation: Operation) -> Vm:
        if vm.state is not VmState.STOPPED:
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" is {vm.state.value}, not stopped', subject=vm.name,
                cause="a disk in use cannot be resized", hint=f"banger vm stop {vm.name}",
            )  # fmt: skip
        check_disk_mib(disk_mib)
        self.services.host.storages.named(vm.storage).grow(self.services.layout.vm_dir(vm.id), disk_mib, operation)
        crashpoint("vm.grow:grown")
        return self._keeper.save(vm, spec=replace(vm.spec, disk_mib=disk_mib))
