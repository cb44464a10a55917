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
        waiters = [services.submit(one, operation.deadline) for one in wanted]
        crashpoint("vm.fork:requested")
        try:
            _wait(waiters, operation)
            crashpoint("vm.fork:made")
            return [services.submit(KeepVm(one.vm_id, one.vm_name), operation.deadline).wait() for one in wanted]
        except BaseException:
            for waiter in waiters:
                waiter.leave()
            _take_back(services, wanted)
            raise


def _wait(waiters: Sequence[Waiter], operation: Operation) -> None:
    if len(waiters) == 1:
        waiters[0].subscribe(operation.mirror)
        waiters[0].wait(operation.token)
        return
    with operation.step(f"start {len(waiters)} forks") as step:
        for done, waiter in enumerate(waiters, 1):
            waiter.wait(operation.token)
            step.update(done, len(waiters), "VMs")


def _take_back(services: Services, wanted: Sequence[CreateVm]) -> None:
    """Whatever became of them: one that is still being made is given up, and leaves nothing."""
    going = [services.submit(DeleteVm(one.vm_id, one.vm_name, force=True), Deadline.never()) for one in wanted]
    for waiter in going:
        with suppress(BangerError):  # never made, or gone already
            waiter.wait()
