"""Who has to do with the guest of a suspended VM has it woken first, and notices nothing but the delay."""

from __future__ import annotations

from collections.abc import Callable

from banger.actors.messages import Command, WakeVm
from banger.core.models import Vm, VmState
from banger.core.states import check_running
from banger.core.waiter import Waiter
from banger.sessions.news import News


class Waking:
    """Wakes VMs. However many ask at once, each VM is woken once."""

    def __init__(self, submit: Callable[[Command], Waiter], is_suspended: Callable[[Vm], bool]) -> None:
        """``is_suspended``: there is something on the disk that a VM is being suspended to, or is being woken from."""
        self._submit = submit
        self._is_suspended = is_suspended

    async def awake(self, vm: Vm) -> Vm:
        """The VM as it runs. Cancelled, a wake that nobody else waits for is given up, and it stays suspended.

        Raises:
            BangerError: ``conflict`` unless it runs or is suspended; what waking it fails with.
        """
        if not self._sleeps(vm):
            check_running(vm)
            return vm
        waiter = self._submit(WakeVm(vm.id, vm.name))
        try:
            news = News(waiter)
            while await news.next() is not None:
                pass
            found = waiter.outcome()
        finally:
            waiter.leave()
        assert isinstance(found, Vm)
        return found

    def _sleeps(self, vm: Vm) -> bool:
        """It is suspended, or on the way there or back."""
        if vm.state in (VmState.SUSPENDED, VmState.SUSPENDING):
            return True
        return vm.state is VmState.STARTING and self._is_suspended(vm)
