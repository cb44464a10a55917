"""Looking after VMs on a tick: is their time over, does anybody use them, has the host room for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime

from loguru import logger

from banger.actors.messages import Command, DeleteVm, PauseVm, ReconcileVm, ResumeVm, StartVm, StopVm
from banger.actors.services import Services
from banger.actors.vm_reconcile import breakdown
from banger.actors.vm_teardown import recorded_identity
from banger.core import clock
from banger.core.cancel import Deadline
from banger.core.errors import BangerError
from banger.core.expiry import ExpiryAction, due
from banger.core.models import Vm, VmState
from banger.core.ports import Fill
from banger.core.restarting import comes_with_daemon, is_due
from banger.host.activity import Connection, established, into_guest
from banger.host.disk_guard import PAUSED_BY, Move, Thresholds, Watched, decide


class Housekeeper:
    """Remembers when each VM was last seen in use. A restart of the daemon counts as a use: better late than wrong."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._begun = clock.now()
        self._last_used: dict[str, datetime] = {}

    @property
    def chores(self) -> Sequence[Callable[[], None]]:
        """All that is to be done on a tick; none needs another."""
        return (self.guard, self.check_vmms, self.look, self.start_again)

    def begin(self) -> None:
        """Start what a new daemon brings back. Once, after the first reconcile."""
        for vm in filter(comes_with_daemon, self._services.store.vms.all()):
            logger.info("{}: started: its restart policy is {}", vm.name, vm.spec.restart)
            self._services.submit(StartVm(vm.id, vm.name), Deadline.never())
        self.start_again()

    def start_again(self) -> None:
        """Start what has ended and is to come back, as far as its time has come. May be called by any thread."""
        now = clock.now()
        for vm in self._services.store.vms.all():
            if is_due(vm, now):
                logger.info("{}: started again: {}", vm.name, vm.reason or vm.exit_reason.value)
                self._services.submit(StartVm(vm.id, vm.name, again=True), Deadline.never())

    def look(self) -> None:
        """Look once, and ask for what is due. Nobody waits for it: the next look sees whether it was done."""
        services = self._services
        vms = services.store.vms.all()
        self._last_used = {vm.id: self._last_used[vm.id] for vm in vms if vm.id in self._last_used}
        connections = established() if any(vm.spec.idle_s for vm in vms) else []
        now = clock.now()
        for vm in vms:
            try:
                self._look_at(vm, now, connections)
            except Exception:  # noqa: BLE001  # what is odd about one VM must not keep the others from ending in time
                logger.exception("{}: whether its time is over cannot be told", vm.name)

    def _look_at(self, vm: Vm, now: datetime, connections: list[Connection]) -> None:
        services = self._services
        if vm.state is VmState.RUNNING and vm.spec.idle_s and self._in_use(vm, connections):
            self._last_used[vm.id] = now
        found = due(vm, now, self._last_use(vm))
        if found is None:
            return
        logger.info("{}: {}: {}", vm.name, found.action.value, found.reason)
        command: Command = (
            DeleteVm(vm.id, vm.name, force=True) if found.action is ExpiryAction.DELETE else StopVm(vm.id, vm.name)
        )
        services.submit(command, Deadline.never())

    def check_vmms(self) -> None:
        """Have VMs reconciled whose machine broke down: their VMM lives on, so that nobody hears of it otherwise."""
        services = self._services
        for vm in services.store.vms.all():
            if vm.state not in (VmState.RUNNING, VmState.PAUSED):
                continue
            try:
                words = breakdown(services, vm, recorded_identity(services, vm.id))
            except (OSError, BangerError) as error:  # it may be going down right now
                logger.debug("{}: how its machine is cannot be told: {}", vm.name, error)
                continue
            if words:
                logger.warning("{}: its machine broke down: {}", vm.name, words)
                services.submit(ReconcileVm(vm.id, vm.name), Deadline.never())

    def guard(self) -> None:
        """Pause VMs before the host or their snapshot runs out of room, and let them go on when there is some."""
        services = self._services
        vms = {vm.id: vm for vm in services.store.vms.all() if _is_guarded(vm)}
        watched = [Watched(vm.id, vm.name, self._fill(vm), is_paused=vm.state is VmState.PAUSED) for vm in vms.values()]
        free = shutil.disk_usage(services.layout.data).free
        for decision in decide(free, watched, Thresholds.of(services.config.number)):
            logger.warning("{}", decision.reason)
            name = vms[decision.vm_id].name
            command: Command = (
                PauseVm(decision.vm_id, name, PAUSED_BY, decision.reason)
                if decision.move is Move.PAUSE
                else ResumeVm(decision.vm_id, name, PAUSED_BY)
            )
            services.submit(command, Deadline.never())

    def _fill(self, vm: Vm) -> Fill:
        try:
            return self._services.host.storages.named(vm.storage).fill(vm.id, self._services.layout.vm_dir(vm.id))
        except (OSError, BangerError) as error:  # it may be going down right now
            logger.debug("{}: how full its disk is cannot be told: {}", vm.name, error)
            return Fill(0, 0)

    def _last_use(self, vm: Vm) -> datetime:
        return max(filter(None, (self._begun, vm.started_at, self._last_used.get(vm.id))))

    def _in_use(self, vm: Vm, connections: list[Connection]) -> bool:
        kept, used = self._services.vms.guests.connections(vm.id)
        return used > 0 or into_guest(vm, connections) > kept


def _is_guarded(vm: Vm) -> bool:
    return vm.state is VmState.RUNNING or (vm.state is VmState.PAUSED and vm.paused_by == PAUSED_BY)
