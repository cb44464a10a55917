"""``run``: create and start a VM, run a command in it, and delete an ephemeral VM however that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from loguru import logger

from banger.actors.messages import Command, CreateVm, DeleteVm
from banger.core.attendance import Attendance
from banger.core.errors import BangerError, ErrorKind
from banger.core.evidence import Evidence
from banger.core.exec import ExecRequest, ExitStatus
from banger.core.image_command import command_of_run
from banger.core.models import ImageConfig, Vm
from banger.core.waiter import Waiter
from banger.sessions.caller import Caller
from banger.sessions.exec import ExecService
from banger.sessions.news import News
from banger.store import Store


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to make and what to run in it.

    Attributes:
        create: makes and starts the VM; of a detached run, its spec has the command.
        execution: what comes after the image's entrypoint; an empty ``argv`` is the image's own command, or a shell.
        detach: nobody waits for the command: the VM's guest starts it with every boot.
    """

    create: CreateVm
    execution: ExecRequest
    timeout_s: float | None = None
    detach: bool = False


class RunService:
    """Sees runs through."""

    def __init__(
        self,
        store: Store,
        submit: Callable[[Command], Waiter],
        attendance: Attendance,
        evidence: Callable[[], Sequence[Evidence]],
        execs: ExecService,
    ) -> None:
        """``evidence`` is what is kept of VMs that went wrong, the newest first."""
        self._store = store
        self._submit = submit
        self._attendance = attendance
        self._evidence = evidence
        self._execs = execs

    async def run(self, request: RunRequest, caller: Caller) -> ExitStatus:
        """Do it. Cancelled, it undoes the creation, or ends the command; an ephemeral VM is gone when this returns."""
        create = request.create
        if not create.spec.ephemeral or request.detach:
            return await self._run(request, caller)
        with self._attendance.held(create.vm_id, create.vm_name):
            return await self._run(replace(request, create=replace(create, attended=True)), caller)

    async def _run(self, request: RunRequest, caller: Caller) -> ExitStatus:
        create = request.create
        waiter = self._submit(create)
        lost: BangerError | None = None
        status = ExitStatus(0)
        try:
            vm = await _follow(waiter, caller)
            if request.detach:
                await caller.put_started(vm)
                return status
            try:
                status = await self._execs.run(vm, self._execution(vm, request), caller, request.timeout_s)
            except BangerError as error:
                if error.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.UNKNOWN_OUTCOME):
                    raise
                lost = error
        finally:
            waiter.leave()
            if create.attended and self._store.vms.get(create.vm_id) is not None:
                await self._delete(create, is_lost=lost is not None)
        if lost is not None:
            raise await asyncio.to_thread(self._told, create.vm_id, lost)
        return status

    def _execution(self, vm: Vm, request: RunRequest) -> ExecRequest:
        """With the image's entrypoint."""
        image = self._store.images.get(vm.image_id)
        config = image.config if image else ImageConfig()
        return replace(request.execution, argv=command_of_run(config, vm.spec.entrypoint, request.execution.argv))

    async def _delete(self, create: CreateVm, *, is_lost: bool) -> None:
        """Delete an ephemeral VM and wait until it is gone."""
        waiter = self._submit(DeleteVm(create.vm_id, create.vm_name, force=True, lost=is_lost))
        news = News(waiter)
        while await news.next() is not None:
            pass
        try:
            waiter.outcome()
        except BangerError as error:
            if error.kind is not ErrorKind.NOT_FOUND:  # the creation was undone already
                logger.warning("ephemeral VM {} was not deleted: {}", create.vm_name, error)

    def _told(self, vm_id: str, lost: BangerError) -> BangerError:
        """The error of a command whose guest was lost, with how its VM ended if that is known by now."""
        kept = next((one for one in self._evidence() if one.vm.id == vm_id), None)
        if kept is None:
            return lost
        name = kept.vm.name
        message, hint = f'VM "{name}" ended while the command ran', f"banger vm why {name}"
        return BangerError(lost.kind, message, subject=name, cause=kept.words, hint=hint)


async def _follow(waiter: Waiter, caller: Caller) -> Vm:
    """Tell the operation's events; the result is the VM."""
    news = News(waiter)
    while (event := await news.next()) is not None:
        await caller.put_event(event)
    vm = waiter.outcome()
    assert isinstance(vm, Vm)
    return vm
