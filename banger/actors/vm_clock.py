"""The clock of a guest that stood still: it goes on from when it stopped, and is late by that until it is set.

Emulated machines stop theirs, as KVM stops what a guest reads its time from; a host that sleeps stops both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from loguru import logger

from banger.actors.services import VmServices
from banger.core import clock
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError
from banger.core.models import Vm
from banger.core.ports import RunningGuest

#: Less is left to the guest: setting a clock is a jump for all that runs by it.
LATE_NS = 10**9
#: A machine that stood still for less, in seconds, is not asked.
SHORT_S = 0.5
#: How long a guest is waited for; one that does not answer keeps the time that it has.
_TIMEOUT_S = 2.0
_AT_ONCE = 8


def set_right(services: VmServices, vm: Vm, token: CancelToken | None = None) -> None:
    """Set the clock of a running guest if it is late. That this fails is no failure of what made it stand still."""
    try:
        late_ns = services.guests.ask(vm, _set_right, _TIMEOUT_S, token)
    except BangerError as error:
        logger.info("{}: whether its clock is late cannot be told: {}", vm.name, error)
        return
    if late_ns > LATE_NS:
        logger.info("{}: its clock was {:.1f} s late, and is set", vm.name, late_ns / 1e9)


async def _set_right(guest: RunningGuest) -> int:
    """How late it was, in nanoseconds."""
    late_ns = clock.unix_ns() - await guest.machine.clock()
    if late_ns > LATE_NS:
        await guest.machine.set_clock(clock.unix_ns())
    return late_ns


def slept_s() -> float:
    """For how long this host has slept since it was booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class WakeWatch:
    """Sets the clocks of guests after their host has slept.

    Args:
        services: those of VMs.
        slept: :func:`slept_s`, or a test's.
    """

    def __init__(self, services: VmServices, slept: Callable[[], float] = slept_s) -> None:
        self._services = services
        self._slept = slept
        self._before_s = slept()

    def look(self, running: Callable[[], Iterable[Vm]]) -> None:
        """Look once; ``running`` are the VMs that run, asked for only if the host has slept since the last look."""
        now_s = self._slept()
        if now_s - self._before_s < SHORT_S:
            return
        logger.info("this host has slept for {:.0f} s", now_s - self._before_s)
        self._before_s = now_s
        with ThreadPoolExecutor(_AT_ONCE, "clocks") as pool:
            list(pool.map(partial(set_right, self._services), running()))
