"""What all commands to a VM's owner do with its row and its host objects: load, save, tear down, erase."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loguru import logger

from banger.actors import suspended_files
from banger.actors.services import Services
from banger.actors.vm_teardown import recorded_identity, tear_down
from banger.core import clock, lookup
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import NO_RESTARTS, ExitReason, Restarts, Vm, VmState
from banger.core.operation import Operation
from banger.core.states import check_move


class VmKeeper:
    """One VM's row and ledger, in its owner's thread. The row is read anew for every command."""

    def __init__(self, services: Services, vm_id: str) -> None:
        self._services = services
        self._vm_id = vm_id

    def load(self, name: str) -> Vm:
        """The VM; ``not_found`` by the name that was asked for."""
        vm = self._services.store.vms.get(self._vm_id)
        if vm is None:
            raise lookup.not_found(name, "vm", [])
        return vm

    def save(self, vm: Vm, **changes: Any) -> Vm:
        """Write the row with some fields changed."""
        vm = replace(vm, **changes)
        self._services.store.vms.update(vm)
        return vm

    def moved(self, vm: Vm, target: VmState) -> Vm:
        """Write another state, if the move is legal."""
        check_move(vm, target)
        return self.save(vm, state=target)

    def is_alive(self, vm: Vm) -> bool:
        """True if its VMM process lives and is proven ours."""
        identity = recorded_identity(self._services, vm.id)
        return identity is not None and self._services.vms.vmms.processes.is_alive(identity)

    def down(
        self,
        vm: Vm,
        exit_reason: ExitReason,
        reason: str,
        operation: Operation,
        restarts: Restarts = NO_RESTARTS,
        *,
        state: VmState = VmState.STOPPED,
    ) -> Vm:
        """Run the cascade and write how it ended, and in the same instant whether it is to be started again."""
        crashpoint("vm.down:begun")
        with operation.step("clean up", is_cleanup=True):
            try:
                tear_down(self._services, vm, recorded_identity(self._services, vm.id))
            except ExceptionGroup as failures:
                error = _incomplete(vm, "cleaned up", failures)
                self.save(vm, state=VmState.FAILED, reason=error.cause, restarts=restarts)
                raise error from failures
        if state is not VmState.SUSPENDED:
            suspended_files.clear(self._services.layout, vm.id)
        vm = self.save(
            vm,
            state=state,
            exit_reason=exit_reason,
            reason=reason,
            stopped_at=clock.now(),
            pid=0,
            ports=(),
            last_ports=vm.ports or vm.last_ports,
            restarts=restarts,
            address="",
            network="",
            network_reason="",
            accelerator="",
            paused_by="",
        )
        try:
            self._services.host.ledger.begin(vm)
        except BangerError as error:  # it holds nothing any more, which is all that counts
            logger.warning("{}: its ledger is not begun anew: {}", vm.name, error)
        return vm

    def erase(self, vm: Vm, *, keep_home: bool | None = None) -> None:
        """Delete for good. The state is a durable intent: a restart in the middle resumes it, as it was requested.

        Raises:
            BangerError: ``internal``: something could not be taken down, which the next reconcile tries again.
        """
        vm = self.save(vm, state=VmState.DELETING, keep_home=vm.keep_home if keep_home is None else keep_home)
        crashpoint("vm.delete:intended")
        self._services.vms.doors.let_go(vm.id)
        try:
            tear_down(self._services, vm, recorded_identity(self._services, vm.id), files=True)
        except ExceptionGroup as failures:
            raise _incomplete(vm, "deleted", failures) from failures
        crashpoint("vm.delete:torn-down")
        self._services.store.vms.delete(vm.id)


def _incomplete(vm: Vm, done: str, failures: ExceptionGroup[Exception]) -> BangerError:
    """The one error of a cleanup of which some steps failed; its cause has all of them in one line."""
    return BangerError(
        ErrorKind.INTERNAL,
        f'VM "{vm.name}" was not {done} completely',
        subject=vm.name,
        cause="; ".join(str(failure) for failure in failures.exceptions),
        hint="banger system reconcile",
    )
