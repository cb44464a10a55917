"""Why a machine ended, decided from what the kernel, the guest and the VMM report. Pure."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from banger.core import console as consoles
from banger.core.exits import ExitRecord, Outcome
from banger.core.models import ExitReason

#: Somebody wanted the process gone; any other signal is the process's own fault.
_ASKED = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})


@dataclass(frozen=True, slots=True)
class Asked:
    """A VMM says that it ended well because somebody sent it a signal; ``pid`` is the sender's, 0 if unknown."""

    signal_number: int
    pid: int = 0


def _never(vmm_words: str) -> Asked | None:  # noqa: ARG001  # nothing is read from them
    return None


def explain_exit(
    outcome: Outcome, console: str, vmm_words: str, asked: Callable[[str], Asked | None] = _never
) -> ExitRecord:
    """The cause, from the strongest evidence to the weakest: the host's kernel, the process's status, the guest.

    Args:
        outcome: of the process.
        console: what the guest printed since it was started; it may print anything.
        vmm_words: the end of what the VMM printed, in one line.
        asked: reads from them that it was asked to end.
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
    if reason is ExitReason.VMM_CRASH and (wish := asked(vmm_words)):
        sender = f" by process {wish.pid}" if wish.pid else ""
        return ExitRecord(ExitReason.KILLED, f"the VMM was ended with {_name(wish.signal_number)}{sender}", status)
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
