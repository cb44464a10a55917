"""The guests of VMs that have none, for tests of their owners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from banger.core import clock
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm
from banger.core.operation import Operation
from banger.core.ports import RunningGuest

_Answer = TypeVar("_Answer")


class FakeGuests:
    """Guests that answer, or refuse when told to."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.left: dict[str, str] = {}
        self.asked_to_power_off: list[str] = []
        self.by_reboot: list[bool] = []
        self.busy: dict[str, int] = {}
        self.refusal: BangerError | None = None
        self.silent = False
        self.on_power_off: Callable[[Vm], None] = lambda vm: None
        self.late_ns: dict[str, int] = {}
        self.sessions: Callable[[Vm], RunningGuest] = lambda vm: cast("RunningGuest", _Clock(self.late_ns, vm))

    def connect(self, vm: Vm, operation: Operation, timeout_s: float, token: CancelToken | None = None) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self.silent:
            token = token or operation.haste
            token.wait(timeout_s)
            token.raise_if_cancelled()
            raise BangerError(ErrorKind.TIMEOUT, f"the guest did not answer within {timeout_s:g} s")
        self.connected.add(vm.id)

    def power_off(self, vm: Vm, timeout_s: float, token: CancelToken | None = None, *, by_reboot: bool = False) -> None:
        self.asked_to_power_off.append(vm.name)
        self.by_reboot.append(by_reboot)
        self.on_power_off(vm)

    def served(self, vm_id: str) -> int:
        return self.busy.get(vm_id, 0)

    def disconnect(self, vm_id: str, reason: str = "the VM was stopped") -> None:
        if vm_id in self.connected:
            self.left[vm_id] = reason
        self.connected.discard(vm_id)

    def ask(
        self,
        vm: Vm,
        work: Callable[[RunningGuest], Coroutine[Any, Any, _Answer]],
        timeout_s: float,
        token: CancelToken | None = None,
    ) -> _Answer:
        async def limited() -> _Answer:
            async with asyncio.timeout(timeout_s):
                return await work(self.session(vm))

        return asyncio.run(limited())

    def session(self, vm: Vm) -> RunningGuest:
        return self.sessions(vm)


class _Clock:
    """A guest of which nothing is wished but that its clock is right; ``late_ns`` is by how much whose is not."""

    def __init__(self, late_ns: dict[str, int], vm: Vm) -> None:
        self._late_ns = late_ns
        self._vm = vm

    @property
    def machine(self) -> _Clock:
        return self

    async def clock(self) -> int:
        return clock.unix_ns() - self._late_ns.get(self._vm.name, 0)

    async def set_clock(self, unix_ns: int) -> int:
        before = await self.clock()
        self._late_ns[self._vm.name] = clock.unix_ns() - unix_ns
        return before

    def __getattr__(self, name: str) -> None:
        raise AssertionError(f"nothing is to run in {self._vm.name}")
