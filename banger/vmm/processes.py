"""The processes of VMMs: finding, identifying and ending them, and how they ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Container
from dataclasses import replace

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import Outcome
from banger.core.models import ProcessIdentity
from banger.vmm import identity as processes
from banger.vmm import kernel_log
from banger.vmm.cpu_time import cpu_seconds


class LocalProcesses:
    """Implements :class:`banger.core.ports.VmmProcesses`. Keeps nothing: all it knows is on the host."""

    def __init__(self, launched: Callable[[str], Outcome], users: Container[int] = ()) -> None:
        """Nothing is looked for yet.

        Args:
            launched: tells what the launcher of a VM's last process was told of its end.
            users: who VMMs may be besides this process's own user.
        """
        self._launched = launched
        self._users = users

    def find(self, marker: str) -> ProcessIdentity | None:
        """The process whose command line carries ``marker``: for a handle that was intended but never recorded."""
        return processes.find(marker, self._users)

    def of_this_boot(self, identity: ProcessIdentity) -> bool:
        """False if the host rebooted since."""
        return processes.of_this_boot(identity)

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """True if this very process lives."""
        return processes.is_same(identity)

    def cpu_seconds(self, identity: ProcessIdentity) -> float:
        """Processor time that the process has used, its guest's included; 0 if it is gone."""
        return cpu_seconds(identity.pid) if processes.is_same(identity) else 0.0

    def kill(self, identity: ProcessIdentity, timeout_s: float = 10.0) -> None:
        """End the process through its pidfd and wait until it is gone; already gone is success."""
        processes.kill(identity)
        if not processes.wait_gone(identity, timeout_s):
            raise BangerError(
                ErrorKind.TIMEOUT,
                f"the VMM process {identity.pid} did not end within {timeout_s:g} s of being killed",
                subject=identity.marker,
                hint=f"cat /proc/{identity.pid}/stack",
            )

    def wait_exit(self, identity: ProcessIdentity, timeout_s: float, token: CancelToken | None = None) -> bool:
        """Wait until the process is gone; False on timeout, and soon after ``token`` is cancelled."""
        return processes.wait_gone(identity, timeout_s, token)

    def outcome(self, vm_id: str, identity: ProcessIdentity) -> Outcome:
        """How the process ended, from all who know a part of it: its launcher, its parent, the host's kernel."""
        outcome = self._launched(vm_id)
        if outcome.status is None:
            outcome = replace(outcome, status=processes.exit_status(identity))
        if not outcome.out_of_memory and outcome.status in (None, -signal.SIGKILL):
            outcome = replace(outcome, out_of_memory=kernel_log.tells_of_oom_kill(identity))
        return outcome
