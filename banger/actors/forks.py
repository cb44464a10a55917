"""Making several VMs from one snapshot at once: all of them, or none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress

from banger.actors.messages import CreateVm, DeleteVm, ForkVm, KeepVm
from banger.actors.services import Services
from banger.core.cancel import Deadline
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError
from banger.core.forking import forked_spec
from banger.core.models import Vm
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.core.waiter import Waiter
from banger.host.resources import cpu_count

#: How many of several forks start at once on each processor. More of them would each take longer than a guest and who
#: waits for it bear, and all of them no less.
AT_ONCE = 4


def make_forks(services: Services, origin: Origin, command: ForkVm, operation: Operation) -> list[Vm]:
    """Have the owners of all copies make and start them, and wait for all.

    Until then they are attended: of a fork that the daemon does not survive, none is left.

    Raises:
        BangerError: what the first that failed failed with; the others are deleted then.
    """
    spec = forked_spec(origin.snapshot.spec, command.ports)
    wanted = [
        CreateVm(copy.vm_id, copy.name, spec, command.owner_uid, start=True, attended=True, origin=origin)
        for copy in command.copies
    ]
    with ExitStack() as held:
        for one in wanted:
            held.enter_context(services.vms.attendance.held(one.vm_id, one.vm_name))
        waiters: list[Waiter] = []
        try:
            if len(wanted) == 1:
                _make_one(services, wanted[0], operation, waiters)
            else:
                _make_all(services, wanted, operation, waiters)
            crashpoint("vm.fork:made")
            return [services.submit(KeepVm(one.vm_id, one.vm_name), operation.deadline).wait() for one in wanted]
        except BaseException:
            for waiter in waiters:
                waiter.leave()
            _take_back(services, wanted)
            raise


def _make_one(services: Services, wanted: CreateVm, operation: Operation, waiters: list[Waiter]) -> None:
    """Its steps are the operation's own."""
    waiters.append(services.submit(wanted, operation.deadline))
    crashpoint("vm.fork:requested")
    waiters[0].subscribe(operation.mirror)
    waiters[0].wait(operation.token)


def _make_all(services: Services, wanted: Sequence[CreateVm], operation: Operation, waiters: list[Waiter]) -> None:
    """Start them in turn, not more at once than :data:`AT_ONCE` for each processor."""
    ahead = AT_ONCE * cpu_count()
    with operation.step(f"start {len(wanted)} forks") as step:
        for number, one in enumerate(wanted):
            if number >= ahead:
                waiters[number - ahead].wait(operation.token)
                step.update(number - ahead + 1, len(wanted), "VMs")
            waiters.append(services.submit(one, operation.deadline))
        crashpoint("vm.fork:requested")
        for done, waiter in enumerate(waiters, 1):
            waiter.wait(operation.token)
            step.update(done, len(waiters), "VMs")


def _take_back(services: Services, wanted: Sequence[CreateVm]) -> None:
    """Whatever became of them: one that is still being made is given up, and leaves nothing."""
    going = [services.submit(DeleteVm(one.vm_id, one.vm_name, force=True), Deadline.never()) for one in wanted]
    for waiter in going:
        with suppress(BangerError):  # never made, or gone already
            waiter.wait()
