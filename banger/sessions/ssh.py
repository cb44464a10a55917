"""Connections to banger's own ssh server in running VMs."""

from __future__ import annotations

from banger.core.exec import ExitStatus
from banger.core.models import Vm
from banger.core.ports import Guests
from banger.sessions.caller import Caller, converse
from banger.sessions.waking import Waking


class SshService:
    """Carries the bytes of callers' ssh clients."""

    def __init__(self, guests: Guests, waking: Waking) -> None:
        self._guests = guests
        self._waking = waking

    async def connect(self, vm: Vm, caller: Caller) -> ExitStatus:
        """Carry bytes both ways until one side has ended. A suspended VM is woken first.

        Raises:
            BangerError: ``conflict`` unless the VM runs, and what :meth:`banger.core.ports.RunningGuest.ssh` raises.
        """
        vm = await self._waking.awake(vm)
        process = await self._guests.session(vm).ssh()
        try:
            await caller.put_started(vm)
            return await converse(caller, process)
        finally:
            await process.close()
