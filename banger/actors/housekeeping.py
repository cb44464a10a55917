"""Periodic work on VMs: expiry, idleness, disk space, restarts that are due."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from loguru import logger

from banger.actors.messages import Command, DeleteVm, PauseVm, ReconcileVm, ResumeVm, StartVm, StopVm, SuspendVm
from banger.actors.services import Services
from banger.actors.suspended_files import suspension_of
from banger.actors.vm_clock import WakeWatch
from banger.actors.vm_machines import condition_of, driver_of
from banger.actors.vm_suspend import listen
from banger.actors.vm_teardown import recorded_identity
from banger.core import clock
from banger.core.cancel import Deadline
from banger.core.errors import BangerError
from banger.core.expiry import ExpiryAction, due, ends_unused
from banger.core.models import Vm, VmState
from banger.core.ports import Fill, Health
from banger.core.restarting import comes_with_daemon, is_due
from banger.core.suspension import IDLE, SHUTDOWN
from banger.host.activity import Connection, established, into_guest
from banger.host.disk_guard import PAUSED_BY, Move, Thresholds, Watched, decide


class Housekeeper:
    """Remembers when each VM was last seen in use. A restart of the daemon counts as a use: better late than wrong."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._begun = clock.now()
        self._last_used: dict[str, datetime] = {}
        self._wakes = WakeWatch(services.vms)
        self._deaf: frozenset[str] = frozenset()  # suspended, and somebody else has one of their ports
        self._tried: dict[str, datetime] = {}  # when a VM was last asked to be suspended
        self._used: dict[str, int] = {}  # bytes on the host's disk at the last look of the guard

    @property
    def chores(self) -> Sequence[Callable[[], None]]:
        """All that is to be done on a tick; none needs another."""
        return (self.guard, self.check_vmms, self.look, self.start_again, self.answer_doors, self.set_clocks)

    def begin(self) -> None:
        """Start what a new daemon brings back. Once, after the first reconcile."""
        self.answer_doors()
        for vm in filter(comes_with_daemon, self._services.store.vms.all()):
            logger.info("{}: started: its restart policy is {}", vm.name, vm.spec.restart)
            self._services.submit(StartVm(vm.id, vm.name), Deadline.never())
        for vm in self._services.store.vms.all():
            found = suspension_of(self._services.layout, vm) if vm.state is VmState.SUSPENDED else None
            if found is not None and found.by == SHUTDOWN:
                logger.info("{}: resumed: it ran when the host went down", vm.name)
                self._services.submit(StartVm(vm.id, vm.name), Deadline.never())
        self.start_again()

    def answer_doors(self) -> None:
        """See to it that who comes to a published port of a suspended VM wakes it."""
        store = self._services.store
        for vm in store.vms.all():
            if vm.state is VmState.SUSPENDED:
                is_heard = listen(self._services, vm, is_told=vm.id in self._deaf)
                self._deaf = self._deaf - {vm.id} if is_heard else self._deaf | {vm.id}
                now = store.vms.get(vm.id)
                if now is None or now.state is not VmState.SUSPENDED:  # it was woken meanwhile
                    self._services.vms.doors.let_go(vm.id)

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
        self._tried = {vm.id: self._tried[vm.id] for vm in vms if vm.id in self._tried and vm.state is VmState.RUNNING}
        connections = established() if any(map(ends_unused, vms)) else []
        now = clock.now()
        for vm in vms:
            try:
                self._look_at(vm, now, connections)
            except Exception:  # noqa: BLE001  # what is odd about one VM must not keep the others from ending in time
                logger.exception("{}: whether its time is over cannot be told", vm.name)

    def _look_at(self, vm: Vm, now: datetime, connections: list[Connection]) -> None:
        services = self._services
        if vm.state is VmState.RUNNING and ends_unused(vm) and self._in_use(vm, connections):
            self._last_used[vm.id] = now
        found = due(vm, now, self._last_use(vm))
        if found is None:
            return
        if found.action is ExpiryAction.SUSPEND:
            self._suspend(vm, found.reason)
            return
        logger.info("{}: {}: {}", vm.name, found.action.value, found.reason)
        command: Command = (
            DeleteVm(vm.id, vm.name, force=True) if found.action is ExpiryAction.DELETE else StopVm(vm.id, vm.name)
        )
        services.submit(command, Deadline.never())

    def _suspend(self, vm: Vm, reason: str) -> None:
        """Not again before as long has passed once more: each try lets its guest stand still."""
        now, tried = clock.now(), self._tried.get(vm.id)
        if tried is not None and now < tried + timedelta(seconds=vm.spec.idle_suspend_s):
            return
        self._tried[vm.id] = now
        logger.info("{}: suspended: {}", vm.name, reason)
        waiter = self._services.submit(SuspendVm(vm.id, vm.name, IDLE, reason), Deadline.never())

        def answered() -> None:
            try:
                waiter.outcome()
            except BangerError as error:
                logger.warning("{}: not suspended although {}: {}", vm.name, reason, error)

        waiter.when_answered(answered)

    def check_vmms(self) -> None:
        """Have VMs reconciled whose machine stands still: their VMM lives on, so that nobody hears of it otherwise."""
        services = self._services
        for vm in services.store.vms.all():
            if vm.state is not VmState.RUNNING:
                continue
            try:
                condition = condition_of(services, vm, recorded_identity(services, vm.id))
            except (OSError, BangerError) as error:  # it may be going down right now
                logger.debug("{}: how its machine is cannot be told: {}", vm.name, error)
                continue
            if condition.health is not Health.RUNS:
                logger.warning("{}: its machine does not run: {}", vm.name, condition.words)
                services.submit(ReconcileVm(vm.id, vm.name), Deadline.never())

    def set_clocks(self) -> None:
        """Set those of running guests right if this host has slept."""
        self._wakes.look(lambda: [vm for vm in self._services.store.vms.all() if vm.state is VmState.RUNNING])

    def guard(self) -> None:
        """Pause VMs before the host or their snapshot runs out of room, and let them go on when there is some."""
        services = self._services
        vms = {vm.id: vm for vm in services.store.vms.all() if _is_guarded(vm)}
        thresholds, together = Thresholds.of(services.config.number), self._by_file_system(vms.values())
        self._used = {vm_id: self._used[vm_id] for vm_id in vms if vm_id in self._used}
        for decision in [one for free, watched in together for one in decide(free, watched, thresholds)]:
            logger.warning("{}", decision.reason)
            name = vms[decision.vm_id].name
            command: Command = (
                PauseVm(decision.vm_id, name, PAUSED_BY, decision.reason)
                if decision.move is Move.PAUSE
                else ResumeVm(decision.vm_id, name, PAUSED_BY)
            )
            services.submit(command, Deadline.never())

    def _by_file_system(self, vms: Iterable[Vm]) -> list[tuple[int, list[Watched]]]:
        """The VMs whose disks compete for the same room, and how much there is of it; as a rule they are all."""
        layout, rooms = self._services.layout, dict[int, tuple[int, list[Watched]]]()
        for vm in vms:
            try:
                place = layout.vm_dir(vm.id)
                room = rooms.setdefault(place.stat().st_dev, (shutil.disk_usage(place).free, []))
            except FileNotFoundError:  # somebody removed it, or it is going
                continue
            room[1].append(self._watched(vm))
        return list(rooms.values())

    def _watched(self, vm: Vm) -> Watched:
        """What the guard goes by: how full its disk is, and what all its disks have taken since the last look."""
        fill = self._fill(vm)
        used = fill.used_bytes + sum(one.used_bytes(vm) for one in self._services.host.capabilities if one.applies(vm))
        before = self._used.get(vm.id, used)
        self._used[vm.id] = used
        return Watched(
            vm.id,
            vm.name,
            fill,
            is_paused=vm.state is VmState.PAUSED,
            taken_bytes=max(0, used - before),
            is_fragile=self._is_fragile(vm),
        )

    def _is_fragile(self, vm: Vm) -> bool:
        try:
            holds = driver_of(self._services, vm).holds_writes
            return not holds or self._services.host.storages.named(vm.storage).is_lost_when_host_is_full
        except BangerError:  # of a driver that this banger does not have
            return True

    def _fill(self, vm: Vm) -> Fill:
        try:
            return self._services.host.storages.named(vm.storage).fill(vm.id, self._services.layout.vm_dir(vm.id))
        except (OSError, BangerError) as error:  # it may be going down right now
            logger.debug("{}: how full its disk is cannot be told: {}", vm.name, error)
            return Fill(0, 0)

    def _last_use(self, vm: Vm) -> datetime:
        return max(filter(None, (self._begun, vm.started_at, self._last_used.get(vm.id))))

    def _in_use(self, vm: Vm, connections: list[Connection]) -> bool:
        return self._services.vms.guests.served(vm.id) > 0 or into_guest(vm, connections) > 0


def _is_guarded(vm: Vm) -> bool:
    return vm.state is VmState.RUNNING or (vm.state is VmState.PAUSED and vm.paused_by == PAUSED_BY)
