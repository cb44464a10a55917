"""What the daemon does with running VMs when it ends because the host goes down (``daemon.on_shutdown``).

A daemon that is stopped, restarted or upgraded leaves them running; only of a host that goes down nothing is left.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence

from loguru import logger

from banger.actors.messages import Command, SuspendVm
from banger.core.cancel import Deadline
from banger.core.errors import BangerError
from banger.core.models import Vm, VmState
from banger.core.suspension import SHUTDOWN
from banger.core.waiter import Waiter

_REASON = "the host was shut down"
#: How long all saves together may take, in seconds, and how often systemd is asked for more time than the unit has
#: (sd_notify(3)), by how much.
_MOST_S, _ASK_S, _MORE_S = 900.0, 5.0, 30
#: VMs that are saved at a time: they share one disk.
_AT_ONCE = 4
_SYSTEMCTL_TIMEOUT_S = 5.0


def host_goes_down(program: str = "systemctl") -> bool:
    """Whether the host, or at least the service manager of an ordinary user, is on its way down.

    A manager says so as soon as its shutdown is queued (``is-system-running``, systemctl(1)), so also to a unit that is
    stopped for that; without a manager nobody can tell, and it does not.
    """
    managers = ((),) if os.geteuid() == 0 else (("--user",), ())
    return any(_says([program, *words, "is-system-running"]) == "stopping" for words in managers)


def suspend_all(
    vms: Sequence[Vm], submit: Callable[[Command, Deadline], Waiter], notify: Callable[[str], object]
) -> None:
    """Have every VM suspended that runs, and wait for it; what cannot be saved is told, and goes down with the host."""
    chosen = [vm for vm in vms if _is_kept(vm)]
    deadline, places = Deadline.after(_MOST_S), threading.Semaphore(_AT_ONCE)
    waiters: list[tuple[Vm, Waiter]] = []
    for vm in chosen:
        _wait(places.acquire, deadline, notify)
        waiter = submit(SuspendVm(vm.id, vm.name, SHUTDOWN, _REASON), deadline)
        waiter.when_answered(places.release)
        waiters.append((vm, waiter))
    for _ in range(_AT_ONCE):  # every place is free again when the last has answered
        _wait(places.acquire, deadline, notify)
    for vm, waiter in waiters:
        try:
            waiter.wait()
        except BangerError as error:
            logger.error("{}: not suspended, and goes down with the host: {}", vm.name, error)


def _is_kept(vm: Vm) -> bool:
    """Those of sessions end with them."""
    runs = vm.state is VmState.RUNNING or (vm.state is VmState.PAUSED and vm.paused_by == "user")
    return runs and not vm.attended


def _wait(acquire: Callable[..., bool], deadline: Deadline, notify: Callable[[str], object]) -> None:
    """Until there is a place, or no time left."""
    while not acquire(timeout=deadline.at_most(_ASK_S)) and not deadline.expired:
        notify(f"EXTEND_TIMEOUT_USEC={_MORE_S * 1_000_000}")


def _says(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_SYSTEMCTL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
