"""The ``Guests`` port through agents: the byte streams of all running VMs, in one event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from banger.agent.endpoint import Endpoint
from banger.agent.guest import AgentGuest
from banger.agent.link import AgentLink
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind, cancelled
from banger.core.models import Vm
from banger.core.operation import Operation

#: How much longer than the work's own timeout a thread waits for an event loop that may have stopped.
_LOOP_GRACE_S = 5.0

_Result = TypeVar("_Result")


class AgentGuests:
    """Implements :class:`banger.core.ports.Guests`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint_of: Callable[[Vm], Endpoint],
        is_attended: Callable[[Vm], bool] = lambda _: True,
    ) -> None:
        """Nothing is connected yet.

        Args:
            loop: runs in a thread of its own.
            endpoint_of: tells where a VM's stream is.
            is_attended: asks a VM's machine whether somebody in its guest has the stream open; called in any thread.
        """
        self._loop = loop
        self._is_attended = is_attended
        self._endpoint_of = endpoint_of
        self._links: dict[str, AgentLink] = {}

    # -- from threads ----------------------------------------------------------------------------------

    def connect(self, vm: Vm, operation: Operation, timeout_s: float, token: CancelToken | None = None) -> None:
        """Have a session; leaves at once when cancelled."""
        operation.haste.raise_if_cancelled()
        seconds = operation.deadline.at_most(timeout_s)
        self._call(self._connect(vm, seconds), seconds, token or operation.haste)

    def power_off(self, vm: Vm, timeout_s: float, token: CancelToken | None = None, *, by_reboot: bool = False) -> None:
        """Have the guest power itself off, or reboot; returns once it has heard."""
        self._call(self._power_off(vm, timeout_s, by_reboot=by_reboot), timeout_s, token)

    def ask(
        self,
        vm: Vm,
        work: Callable[[AgentGuest], Coroutine[Any, Any, _Result]],
        timeout_s: float,
        token: CancelToken | None = None,
    ) -> _Result:
        """Do something with a guest in the loop, and wait for it."""
        return self._call(self._ask(vm, work, timeout_s), timeout_s, token)

    def served(self, vm_id: str) -> int:
        """How many requests a guest serves now."""
        link = self._links.get(vm_id)
        return link.streams if link else 0

    def disconnect(self, vm_id: str, reason: str = "the VM was stopped") -> None:
        """Let go of a guest that is going down. What runs in it fails with ``unknown_outcome``."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drop, vm_id, reason)

    # -- in the loop -----------------------------------------------------------------------------------

    def session(self, vm: Vm) -> AgentGuest:
        """The guest of a running VM."""
        return AgentGuest(vm.id, self._link(vm))

    async def close(self) -> None:
        """Let go of every guest; the daemon is ending."""
        for vm_id in list(self._links):
            self._drop(vm_id, "the daemon ended")

    async def _connect(self, vm: Vm, timeout_s: float) -> None:
        await self._link(vm).connect(timeout_s)

    async def _power_off(self, vm: Vm, timeout_s: float, *, by_reboot: bool) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.session(vm).power_off(by_reboot=by_reboot)
        except TimeoutError:
            message = f"the guest did not heed within {timeout_s:g} s"
            raise BangerError(ErrorKind.TIMEOUT, message, subject=vm.id) from None

    async def _ask(
        self, vm: Vm, work: Callable[[AgentGuest], Coroutine[Any, Any, _Result]], timeout_s: float
    ) -> _Result:
        try:
            async with asyncio.timeout(timeout_s):
                return await work(self.session(vm))
        except TimeoutError:
            message = f"the guest did not answer within {timeout_s:g} s"
            raise BangerError(ErrorKind.TIMEOUT, message, subject=vm.id) from None

    def _link(self, vm: Vm) -> AgentLink:
        link = self._links.get(vm.id)
        if link is None:
            link = self._links[vm.id] = AgentLink(vm.id, self._endpoint_of(vm), partial(self._is_attended, vm))
        return link

    def _drop(self, vm_id: str, reason: str) -> None:
        link = self._links.pop(vm_id, None)
        if link is not None:
            link.drop(reason)

    def _call(self, work: Coroutine[Any, Any, _Result], timeout_s: float, token: CancelToken | None = None) -> _Result:
        """Run ``work`` in the loop and wait for it here."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise cancelled("the daemon is shutting down") from error

        def abandon() -> None:
            future.cancel()

        forget = token.on_cancel(abandon) if token else abandon
        try:
            return future.result(timeout_s + _LOOP_GRACE_S)
        except concurrent.futures.CancelledError:
            raise cancelled(token.reason if token and token.cancelled else "the daemon is shutting down") from None
        except TimeoutError:
            future.cancel()
            raise BangerError(ErrorKind.TIMEOUT, f"no answer within {timeout_s:g} s") from None
        finally:
            forget()
