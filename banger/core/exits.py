"""How a VMM's process ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from banger.core.models import ExitReason


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended, as far as its launcher was told.

    Attributes:
        status: exit code, or minus the number of the signal that ended it; ``None`` if nobody knows.
        out_of_memory: the kernel killed it because its limit or the host's memory was used up.
    """

    status: int | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """What is known of the end of a machine that nobody here asked to end.

    Attributes:
        reason: the cause, as a VM's row keeps it.
        words: a line for people.
        status: exit code of the process, or minus the number of the signal that ended it; ``None`` if nobody knows.
    """

    reason: ExitReason
    words: str
    status: int | None = None


_WANTED = frozenset(
    {ExitReason.NONE, ExitReason.REQUESTED, ExitReason.GUEST_POWEROFF, ExitReason.GUEST_REBOOT, ExitReason.HOST_REBOOT}
)


def is_failure(reason: ExitReason) -> bool:
    """True for an end that neither the guest nor its user nor a reboot of the host wanted."""
    return reason not in _WANTED
