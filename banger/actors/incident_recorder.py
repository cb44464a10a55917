"""Recording what is known when a VM does not boot or ends by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loguru import logger

from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.actors.vm_machines import driver_of, machine_of
from banger.actors.vm_teardown import console_of_this_boot, find_process
from banger.core.errors import BangerError, internal_error
from banger.core.evidence import Happened, Incident, failure_is_kept
from banger.core.exits import ExitRecord, is_failure
from banger.core.models import ExitReason, Image, Kernel, ProcessIdentity, Vm
from banger.core.operation import Operation

#: How long a machine that went silent is given to end by itself, in seconds: its sockets go before its process does.
LOST_S = 2.0


@dataclass(frozen=True, slots=True)
class Start:
    """A start, as far as it came; ``identity`` is unknown until a VMM was started."""

    image: Image
    kernel: Kernel
    accelerator: str
    identity: ProcessIdentity


class IncidentRecorder:
    """Records what goes wrong during one command of one VM's owner, once, and before anything is taken down.

    Nothing here may keep a cleanup from running: what fails is logged.
    """

    def __init__(self, services: Services, operation: Operation) -> None:
        self._services = services
        self._operation = operation
        self._has_recorded = False

    def start_failed(self, vm: Vm, error: BaseException, start: Start) -> None:
        """A start failed; its VMM may run still. The error's hint is made to name the record."""
        was_launched = start.identity.known
        self._failed(Happened.START, vm, error, start, was_launched=was_launched)
        if was_launched and isinstance(error, BangerError) and "banger vm why" not in error.hint:
            error.hint = "; ".join(filter(None, (error.hint, f"all that is known: banger vm why {vm.name}")))

    def create_failed(self, vm: Vm, error: BaseException) -> None:
        """A VM could not be made, perhaps before it had an image or a kernel."""
        self._failed(Happened.CREATE, vm, error, None, was_launched=False)

    def interrupted(self, vm: Vm) -> None:
        """The daemon ended while the VM was being made or started."""
        words = f"the daemon ended while it was {vm.state.value}"
        self._record(Happened.START, vm, words, ended=self._end_of(vm))

    def ended(self, vm: Vm, record: ExitRecord) -> None:
        """It ended by itself."""
        if is_failure(record.reason):
            self._record(Happened.EXIT, vm, record.words, ended=record)

    def if_ended(self, vm: Vm, wait_s: float = 0.0) -> ExitRecord | None:
        """How it ended, and kept, if it is not there any more although nobody asked for it; else None."""
        record = self._end_of(vm, wait_s)
        if record is not None:
            self.ended(vm, record)
        return record

    def _failed(
        self, happened: Happened, vm: Vm, error: BaseException, start: Start | None, *, was_launched: bool
    ) -> None:
        if not failure_is_kept(error, was_launched=was_launched):
            return
        known = error if isinstance(error, BangerError) else internal_error(error, f'making VM "{vm.name}"')
        self._record(happened, vm, known.message, known, self._end_of(vm) if was_launched else None, start)

    def _record(
        self,
        happened: Happened,
        vm: Vm,
        words: str,
        error: BangerError | None = None,
        ended: ExitRecord | None = None,
        start: Start | None = None,
    ) -> None:
        if self._has_recorded:
            return
        self._has_recorded = True
        services = self._services
        try:
            incident = Incident(
                happened=happened,
                vm=vm,
                words=words,
                error=error,
                ended=ended,
                image=start.image if start else services.store.images.get(vm.image_id),
                kernel=start.kernel if start else services.store.kernels.get(vm.kernel_id),
                handles=tuple(services.host.ledger.of(vm.id).of()),
                steps=() if happened is Happened.EXIT else tuple(self._operation.steps),
                accelerator=start.accelerator if start else "",
                error_counters=_counted(services, vm),
            )
        except Exception as failure:  # noqa: BLE001  # the boundary: a store that fails must not hinder the cleanup
            logger.warning("{}: no evidence of it is gathered: {}", vm.name, failure)
            return
        services.host.evidence.keep(incident)

    def _end_of(self, vm: Vm, wait_s: float = 0.0) -> ExitRecord | None:
        """How its VMM ended; None while it runs, and if it never did."""
        try:
            identity, is_alive = find_process(self._services, self._services.host.ledger.of(vm.id).of("process"))
            if identity is None or not identity.known:
                return None
            if is_alive and not wait_s:
                return None
            if not self._services.vms.vmms.processes.wait_exit(
                identity, wait_s
            ):  # hears how, too, if we are its parent
                return None
            return cause_of_exit(self._services, vm, identity)
        except Exception as failure:  # noqa: BLE001  # the boundary, as above
            logger.warning("{}: how it ended cannot be told: {}", vm.name, failure)
            return None


def _counted(services: Services, vm: Vm) -> Mapping[str, int]:
    """What its VMM has counted; of a banger that had more drivers, nobody can tell."""
    try:
        return driver_of(services, vm).error_counters(VmFiles(services.layout, vm.id).vmm_log)
    except BangerError:
        return {}


def cause_of_exit(services: Services, vm: Vm, identity: ProcessIdentity) -> ExitRecord:
    """How a VMM that is gone ended, and why."""
    processes = services.vms.vmms.processes
    if identity.known and not processes.of_this_boot(identity):
        return ExitRecord(ExitReason.HOST_REBOOT, "the host rebooted")
    try:
        driver = driver_of(services, vm)
    except BangerError as error:  # of a banger that had more drivers: its VMs come down all the same
        return ExitRecord(ExitReason.VMM_CRASH, f"how it ended cannot be told: {error}")
    outcome = processes.outcome(vm.id, identity)
    return driver.exit_record(machine_of(services, vm, identity), outcome, console_of_this_boot(services, vm))
