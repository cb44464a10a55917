"""The owner of one VM: create, start, stop, kill, delete, and settling after an exit or a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loguru import logger

from banger.actors.base import OwnerActor
from banger.actors.messages import (
    Command,
    CreateVm,
    DeleteVm,
    KillVm,
    SettleVm,
    StartVm,
    StopVm,
)
from banger.actors.vm_files import VmFiles
from banger.actors.vm_sizes import with_sizes
from banger.actors.vm_start import VmStart
from banger.actors.vm_teardown import console_of_this_boot, recorded_identity, tear_down
from banger.core import clock, console, lookup
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, Image, Kernel, ProcessIdentity, Vm, VmState
from banger.core.operation import Operation
from banger.core.states import LIVE, check_move
from banger.host.resources import check_memory


class VmActor(OwnerActor):
    """Owns one VM. Its row is read anew for every command: memory is never ahead of the disk."""

    def handle(self, command: Command, operation: Operation) -> Any:
        """Dispatch."""
        match command:
            case CreateVm():
                return self._create(command, operation)
            case StartVm():
                return self._start_vm(self._load(command.vm_name), operation)
            case StopVm():
                return self._stop_vm(self._load(command.vm_name), command.timeout_s, operation)
            case KillVm():
                return self._kill_vm(self._load(command.vm_name), operation)
            case DeleteVm():
                return self._delete(self._load(command.vm_name), operation, force=command.force)
            case SettleVm():
                return self._settle(command, operation)
        raise TypeError(f"a VM's owner cannot do {command.verb}")

    # -- up --------------------------------------------------------------------------------------------

    def _create(self, command: CreateVm, operation: Operation) -> Vm:
        services = self.services
        check_memory(command.spec.memory_mib)  # before anything is fetched
        vm = Vm(
            id=command.vm_id,
            name=command.vm_name,
            spec=command.spec,
            state=VmState.CREATING,
            created_at=clock.now(),
            owner_uid=command.owner_uid,
        )
        services.store.vms.insert(vm)  # claims the name
        crashpoint("vm.create:name-claimed")
        try:
            image, kernel = self._artifacts(vm, operation)
            crashpoint("vm.create:artifacts-here")
            spec = with_sizes(vm.spec, image.defaults, services.config)
            check_memory(spec.memory_mib)
            vm = self._save(vm, image_id=image.id, kernel_id=kernel.id, spec=spec)
            with operation.step("create disk"):
                files = VmFiles(services.layout, vm.id)
                files.make()
                services.storage.create(files.directory, services.layout.image_rootfs(image), vm.spec.disk_mib)
            crashpoint("vm.create:disk-made")
            vm = self._save(vm, state=VmState.STOPPED)
            crashpoint("vm.create:done")
            return self._start_vm(vm, operation) if command.start else vm
        except BaseException as error:
            self._undo_create(vm, error)
            raise

    def _undo_create(self, vm: Vm, error: BaseException) -> None:
        try:
            self._erase(self.services.store.vms.get(vm.id) or vm)
        except Exception as failure:  # noqa: BLE001  # the first error is the one to report
            error.add_note(f"undoing the creation failed: {failure}")

    def _artifacts(self, vm: Vm, operation: Operation) -> tuple[Image, Kernel]:
        """Image and kernel of a VM, brought here if they are missing."""
        resolver = self.services.resolver
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

    def _start_vm(self, vm: Vm, operation: Operation) -> Vm:
        if vm.state is VmState.RUNNING and self._alive(vm):
            return vm
        check_move(vm, VmState.STARTING)
        image = self.services.store.images.get(vm.image_id)
        kernel = self.services.store.kernels.get(vm.kernel_id)
        if image is None or kernel is None:
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" was not created completely', subject=vm.name,
                hint=f"banger vm delete {vm.name}",
            )  # fmt: skip
        vm = self._save(vm, state=VmState.STARTING, reason="", exit_reason=ExitReason.NONE)
        start = VmStart(self.services, vm, image, kernel, operation)
        try:
            vm = start.run()
        except BaseException as error:
            self._start_failed(vm, error)
            raise
        crashpoint("vm.start:up")
        vm = self._save(vm, state=VmState.RUNNING, started_at=clock.now(), stopped_at=None, timings=operation.steps)
        self.services.watcher.watch(vm.id, start.identity)
        return vm

    def _start_failed(self, vm: Vm, error: BaseException) -> None:
        left = self.services.store.handles.of(vm.id, "process")
        state = VmState.FAILED if left else VmState.STOPPED
        reason = str(error.message) if isinstance(error, BangerError) else f"{type(error).__name__}: {error}"
        self._save(vm, state=state, reason=reason, pid=0, ssh_port=0, ports=())

    # -- down ------------------------------------------------------------------------------------------

    def _stop_vm(self, vm: Vm, timeout_s: float, operation: Operation) -> Vm:
        if vm.state is VmState.STOPPED:
            return vm
        identity = recorded_identity(self.services, vm.id)
        vm = self._moved(vm, VmState.STOPPING)
        crashpoint("vm.stop:begun")
        if identity is not None and identity.known:
            with operation.step("ask guest"):
                self._ask_to_power_off(vm)
            with operation.step("wait for guest"):
                if not self.services.vmm.wait_exit(identity, timeout_s):
                    operation.note(f"the guest did not power off within {timeout_s:g} s: killed")
        return self._down(vm, ExitReason.REQUESTED, "", operation)

    def _ask_to_power_off(self, vm: Vm) -> None:
        """By banger's own channel; if the guest does not answer there, by its power button."""
        try:
            self.services.guests.run(self.services.access(vm), self.services.boot.poweroff_command(), timeout_s=10.0)
        except BangerError as error:
            if error.kind is ErrorKind.UNKNOWN_OUTCOME:
                return  # it heard, and went down before it could answer
            logger.info("{}: not asked through ssh ({}), pressing the power button", vm.name, error)
            identity = recorded_identity(self.services, vm.id)
            if identity is not None:
                self.services.vmm.power_down(identity, self.services.layout.vm_run_dir(vm.id))

    def _kill_vm(self, vm: Vm, operation: Operation) -> Vm:
        if vm.state is VmState.STOPPED:
            return vm
        return self._down(self._moved(vm, VmState.STOPPING), ExitReason.KILLED, "", operation)

    def _moved(self, vm: Vm, target: VmState) -> Vm:
        check_move(vm, target)
        return self._save(vm, state=target)

    def _down(self, vm: Vm, exit_reason: ExitReason, reason: str, operation: Operation) -> Vm:
        """Run the cascade and write how it ended."""
        crashpoint("vm.down:begun")
        with operation.step("clean up"):
            try:
                tear_down(self.services, vm, recorded_identity(self.services, vm.id))
            except ExceptionGroup as failures:
                self._save(vm, state=VmState.FAILED, reason=_joined(failures))
                raise BangerError(
                    ErrorKind.INTERNAL, f'VM "{vm.name}" was not cleaned up completely', subject=vm.name,
                    cause=_joined(failures), hint="banger system reconcile",
                ) from failures  # fmt: skip
        return self._save(
            vm,
            state=VmState.STOPPED,
            exit_reason=exit_reason,
            reason=reason,
            stopped_at=clock.now(),
            pid=0,
            ssh_port=0,
            ports=(),
            address="",
            accelerator="",
        )

    def _delete(self, vm: Vm, operation: Operation, *, force: bool) -> dict[str, Any]:
        if vm.state in LIVE and not force and self._alive(vm):
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" is {vm.state.value}', subject=vm.name,
                hint=f"banger vm stop {vm.name}, or banger vm delete --force {vm.name}",
            )  # fmt: skip
        with operation.step("delete"):
            try:
                self._erase(vm)
            except ExceptionGroup as failures:
                raise BangerError(
                    ErrorKind.INTERNAL, f'VM "{vm.name}" was not deleted completely', subject=vm.name,
                    cause=_joined(failures), hint="banger system reconcile",
                ) from failures  # fmt: skip
        return {"id": vm.id, "name": vm.name}

    def _erase(self, vm: Vm) -> None:
        """Delete for good. The state is a durable intent: a restart in the middle resumes it."""
        vm = self._save(vm, state=VmState.DELETING)
        crashpoint("vm.delete:intended")
        tear_down(self.services, vm, recorded_identity(self.services, vm.id), files=True)
        crashpoint("vm.delete:torn-down")
        self.services.store.vms.delete(vm.id)

    # -- settling --------------------------------------------------------------------------------------

    def _settle(self, command: SettleVm, operation: Operation) -> Vm | None:
        """Make row, ledger and host agree; says what it did in the log and as the operation's note."""
        vm = self.services.store.vms.get(command.vm_id)
        if vm is None:
            return None
        if vm.state is VmState.DELETING or vm.state is VmState.CREATING:
            operation.note(f"{vm.name}: half {'deleted' if vm.state is VmState.DELETING else 'created'}, removed")
            self._erase(vm)
            return None
        identity = recorded_identity(self.services, vm.id)
        if identity is None:
            return self._settle_without_process(vm, operation)
        if self.services.vmm.is_alive(identity):
            return self._settle_alive(vm, operation)
        reason, words = self._cause_of_exit(vm, identity)
        operation.note(f"{vm.name}: {words}")
        vm = self._down(vm, reason, words, operation)
        if vm.spec.ephemeral:
            self._erase(vm)
        return vm

    def _settle_without_process(self, vm: Vm, operation: Operation) -> Vm:
        """It was never started, or a start ended before there was a process."""
        if vm.state not in LIVE and not self.services.store.handles.of(vm.id):
            return vm
        operation.note(f"{vm.name}: half started, cleaned up")
        return self._down(vm, ExitReason.NONE, "the daemon ended while it was starting", operation)

    def _settle_alive(self, vm: Vm, operation: Operation) -> Vm:
        identity = recorded_identity(self.services, vm.id)
        assert identity is not None
        if vm.state in (VmState.RUNNING, VmState.PAUSED):
            self.services.watcher.watch(vm.id, identity)
            return vm
        # Nobody waits for a start or a stop that an earlier daemon began: finish it the safe way.
        operation.note(f"{vm.name}: was {vm.state.value} when the daemon ended, stopped")
        return self._down(vm, ExitReason.KILLED, f"the daemon ended while it was {vm.state.value}", operation)

    def _cause_of_exit(self, vm: Vm, identity: ProcessIdentity) -> tuple[ExitReason, str]:
        if identity.known and not self.services.vmm.of_this_boot(identity):
            return ExitReason.HOST_REBOOT, "the host rebooted"
        return console.exit_reason(console_of_this_boot(self.services, vm))

    # -- helpers ---------------------------------------------------------------------------------------

    def _load(self, name: str) -> Vm:
        vm = self.services.store.vms.get(self.key.name)
        if vm is None:
            raise lookup.not_found(name, "vm", [])
        return vm

    def _save(self, vm: Vm, **changes: Any) -> Vm:
        vm = replace(vm, **changes)
        self.services.store.vms.update(vm)
        return vm

    def _alive(self, vm: Vm) -> bool:
        identity = recorded_identity(self.services, vm.id)
        return identity is not None and self.services.vmm.is_alive(identity)


def _joined(failures: ExceptionGroup[Exception]) -> str:
    return "; ".join(str(failure) for failure in failures.exceptions)
