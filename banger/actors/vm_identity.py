"""Renewing who a guest is after it was started from a saved machine: item by item, and then all of it is verified."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from banger.actors.identity_items import ITEM_TIMEOUT_S, RENEWING, make_identity
from banger.actors.restore_hooks import HookError
from banger.actors.services import VmServices
from banger.core import clock
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.guest_identity import SeenIdentity
from banger.core.identity import Inspection, Renewal, first_fault, items_of
from banger.core.models import Vm
from banger.core.operation import Operation
from banger.core.ports import RunningGuest

#: What a guest's refusal may be of to whoever started the VM; all else is "the guest cannot do it".
_KINDS = (ErrorKind.TIMEOUT, ErrorKind.UNKNOWN_OUTCOME, ErrorKind.EXHAUSTED)

_Answer = TypeVar("_Answer")


def renew_identity(
    services: VmServices, vm: Vm, renewal: Renewal, operation: Operation, token: CancelToken | None = None
) -> SeenIdentity:
    """Make a running guest that answers the one that ``renewal`` says. Each item is a step.

    Nobody in its network should hear of the guest before this returns. If it fails, some of it is renewed.

    Args:
        services: those of VMs.
        vm: that runs now.
        renewal: who it is to be.
        operation: has the steps.
        token: ends waiting for the guest; the operation's own if there is none.

    Returns:
        Who the guest is now.

    Raises:
        BangerError: names the item, or the hook, that cannot be renewed, or was not: ``unavailable``, ``timeout``,
            ``unknown_outcome`` or ``exhausted``; ``cancelled``.
    """
    token = token or operation.haste

    def ask(
        item: str, work: Callable[[RunningGuest], Coroutine[Any, Any, _Answer]], limit_s: float = ITEM_TIMEOUT_S
    ) -> _Answer:
        token.raise_if_cancelled()
        try:
            return services.guests.ask(vm, work, operation.deadline.at_most(limit_s), token)
        except BangerError as error:
            raise _told(error, vm, item) from error

    with operation.step("ask who the guest was"):
        saved = ask("identity", _identity)
        makings = make_identity(renewal, saved, services.host_keys)
    for item in items_of(renewal.event):
        work = RENEWING[item]
        if work.is_needed(makings):
            with operation.step(work.step):
                ask(item.name, partial(work.renew, makings), work.limit_s)
    with operation.step("verify identity"):
        asked_ns = clock.unix_ns()
        seen = ask("identity", _identity)
        answered_ns = clock.unix_ns()
        repeats = services.random_reads.claim(vm.name, seen.random)
        fault = first_fault(renewal.event, Inspection(makings.wanted, saved, seen, asked_ns, answered_ns, repeats))
        if fault is not None:
            message = f'VM "{vm.name}" has not renewed its {fault[0].name}'
            raise BangerError(ErrorKind.UNAVAILABLE, message, subject=vm.name, cause=fault[1], hint=_hint(vm))
    return seen


async def _identity(guest: RunningGuest) -> SeenIdentity:
    return await guest.machine.identity()


def _told(error: BangerError, vm: Vm, item: str) -> BangerError:
    """The same error, of this item of this VM."""
    if error.kind is ErrorKind.CANCELLED:
        return error
    if isinstance(error, HookError):
        message = f'the hook "{error.path}" failed in VM "{vm.name}"'
        return BangerError(error.kind, message, subject=vm.name, cause=error.cause, hint=error.hint)
    kind = error.kind if error.kind in _KINDS else ErrorKind.UNAVAILABLE
    message = f'VM "{vm.name}" cannot renew its {item}'
    return BangerError(kind, message, subject=vm.name, cause=str(error), hint=error.hint or _hint(vm))


def _hint(vm: Vm) -> str:
    return f"banger vm why {vm.name}"
