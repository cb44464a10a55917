"""What running VMs say about themselves."""

from __future__ import annotations

import asyncio

from banger.core.errors import BangerError, ErrorKind
from banger.core.guest_facts import GuestFacts
from banger.core.models import Vm
from banger.core.ports import Guests
from banger.core.states import check_running

#: How long a guest may take to tell its figures: who looks at several does not wait long for one that is stuck.
FACTS_TIMEOUT_S = 10.0


class MachineService:
    """Asks guests."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    async def facts(self, vm: Vm) -> GuestFacts:
        """The figures of a running VM's guest, which are its word.

        Raises:
            BangerError: ``conflict`` unless the VM runs, ``timeout``, ``unavailable``.
        """
        check_running(vm)
        try:
            async with asyncio.timeout(FACTS_TIMEOUT_S):
                return await self._guests.session(vm).machine.facts()
        except TimeoutError:
            message = f"the guest did not tell its figures within {FACTS_TIMEOUT_S:g} s"
            raise BangerError(ErrorKind.TIMEOUT, message, subject=vm.name) from None
