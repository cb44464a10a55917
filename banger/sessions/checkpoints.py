"""Checkpoints: snapshots of a VM before a command runs in it, so that it can be undone."""

from __future__ import annotations

from collections.abc import Callable

from banger.actors.messages import Command, CreateSnapshot
from banger.core.models import Vm
from banger.core.snapshot_rules import checkpoint_name
from banger.core.waiter import Waiter
from banger.sessions.caller import Caller
from banger.sessions.news import News
from banger.sessions.waking import Waking
from banger.store import Store


class CheckpointService:
    """Takes them."""

    def __init__(self, store: Store, submit: Callable[[Command], Waiter], waking: Waking) -> None:
        self._store = store
        self._waking = waking
        self._submit = submit

    async def take(self, vm: Vm, owner_uid: int, caller: Caller) -> None:
        """Take one of a VM, which is woken first, and tell the caller how that goes. Cancelled, none is left.

        Raises:
            BangerError: ``conflict`` unless the VM runs, and what taking a snapshot raises.
        """
        vm = await self._waking.awake(vm)
        name = checkpoint_name(vm.name, {one.name for one in self._store.snapshots.all()})
        command = CreateSnapshot(name, vm.id, vm.name, owner_uid, is_name_made_up=True, is_checkpoint=True)
        waiter = self._submit(command)
        try:
            news = News(waiter)
            while (event := await news.next()) is not None:
                await caller.put_event(event)
            waiter.outcome()
        finally:
            waiter.leave()
