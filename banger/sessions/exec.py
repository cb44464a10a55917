"""Running commands in running VMs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, ExitStatus
from banger.core.models import Vm
from banger.core.ports import GuestProcess, Guests
from banger.sessions.caller import Caller, converse
from banger.sessions.waking import Waking
from banger.store import Store


class ExecService:
    """Starts commands, and sees them through."""

    def __init__(self, store: Store, guests: Guests, waking: Waking) -> None:
        self._store = store
        self._guests = guests
        self._waking = waking

    async def start(self, vm: Vm, request: ExecRequest) -> GuestProcess:
        """Start a command in a VM, which is woken first if it is suspended; whoever asked has to close the command.

        Raises:
            BangerError: ``conflict`` unless the VM runs then, and what :meth:`banger.core.ports.RunningGuest.exec`
                raises.
        """
        vm = await self._waking.awake(vm)
        return await self._guests.session(vm).exec(self.completed(vm, request))

    async def run(self, vm: Vm, request: ExecRequest, caller: Caller, timeout_s: float | None = None) -> ExitStatus:
        """Run a command for a caller to its end. Cancelled, it ends the command.

        Raises:
            BangerError: ``timeout`` after ``timeout_s``, ``unknown_outcome`` if the guest was lost, and what
                :meth:`start` raises.
        """
        process = await self.start(vm, replace(request, has_input=caller.has_input))
        try:
            await caller.put_started(vm)
            async with asyncio.timeout(timeout_s):
                return await converse(caller, process)
        except TimeoutError:
            raise BangerError(
                ErrorKind.TIMEOUT, f"the command did not end within {timeout_s:g} s", subject=vm.name
            ) from None
        finally:
            await process.close()

    def completed(self, vm: Vm, request: ExecRequest) -> ExecRequest:
        """Fill in what the caller left open from the VM's spec and the image's configuration."""
        image = self._store.images.get(vm.image_id)
        user, workdir = request.user or vm.spec.user, request.workdir or vm.spec.workdir
        if image is not None:
            user = user or image.config.user
            workdir = workdir or image.config.workdir
        # Also that of its spec, of which a guest that has gone on from a template was not told while it booted.
        env = (*vm.spec.env, *request.env)
        return replace(request, user=user, workdir=workdir, env=env)
