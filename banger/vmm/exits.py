"""Why a machine ended: what the kernel, the guest and the VMM say of it, weighed. Pure."""

from __future__ import annotations

import re
import signal

from banger.core import console as consoles
from banger.core.exits import ExitRecord
from banger.core.models import ExitReason
from banger.launch import Outcome

#: Somebody wanted the process gone; any other signal is the process's own fault.
_ASKED = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
#: QEMU takes these signals as a wish, says so and exits well (QEMU: softmmu/runstate.c).
_TERMINATED = re.compile(r"terminating on signal (\d+)(?: from pid (\d+))?")


def explain_exit(outcome: Outcome, console: str, vmm_words: str) -> ExitRecord:
    """The cause, from the strongest evidence to the weakest: the host's kernel, the process's status, the guest.

    Args:
        outcome: of the process.
        console: what the guest printed since it was started; it may print anything.
        vmm_words: the end of what the VMM printed, in one line.
    """
    status = outcome.status
    if outcome.out_of_memory:
        words = "the host's kernel killed the VMM because memory ran out"
        return ExitRecord(ExitReason.OUT_OF_MEMORY, words, status)
    if status is not None and status < 0:
        return _by_signal(-status, vmm_words)
    if status:
        words = f"the VMM ended with status {status}" + (f": {vmm_words}" if vmm_words else "")
        return ExitRecord(ExitReason.VMM_CRASH, words, status)
    reason, words = consoles.exit_reason(console)
    if reason is ExitReason.VMM_CRASH and (asked := _TERMINATED.search(vmm_words)):
        sender = f" by process {asked[2]}" if asked[2] else ""
        return ExitRecord(ExitReason.KILLED, f"the VMM was ended with {_name(int(asked[1]))}{sender}", status)
    return ExitRecord(reason, words, status)


def _by_signal(number: int, vmm_words: str) -> ExitRecord:
    if number in _ASKED:
        return ExitRecord(ExitReason.KILLED, f"the VMM was killed with {_name(number)}", -number)
    words = f"the VMM crashed with {_name(number)}" + (f": {vmm_words}" if vmm_words else "")
    return ExitRecord(ExitReason.VMM_CRASH, words, -number)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
