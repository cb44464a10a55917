"""Connections to banger's own ssh server in running VMs."""

from __future__ import annotations

from banger.core.exec import ExitStatus
from banger.core.models import Vm
from banger.core.ports import Guests
from banger.core.states import check_running
from banger.sessions.caller import Caller, converse


class SshService:
    """Carries the bytes of callers' ssh clients."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    async def connect(self, vm: Vm, caller: Caller) -> ExitStatus:
        """Carry bytes both ways until one side has ended.

        Raises:
            BangerError: ``conflict`` unless the VM runs, and what :meth:`banger.core.ports.RunningGuest.ssh` raises.
        """
        check_running(vm)
        process = await self._guests.session(vm).ssh()
        try:
            await caller.put_started(vm)
            return await converse(caller, process)
        finally:
            await process.close()
