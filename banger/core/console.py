"""Reading a guest's console: the marks that banger's init prints, and how a machine ended. Pure.

The console is the guest's to write, so it is evidence for people and for timing, never proof: readiness is
proven by an answer on the byte stream that its VMM holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from banger.core.models import ExitReason

_MARK = re.compile(r"^banger: (init|root|ready|failed:)\s*(.*?)\s*$", re.MULTILINE)
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
#: The unpacker of a bzImage stops for good after this (Linux: arch/x86/boot/compressed/error.c).
_HALTED = re.compile(r"-- System halted")
#: The last is banger's own init's, on a machine that only ends by a reboot.
_POWER_OFF = re.compile(
    r"reboot: (Power down|System halted|Power off not available)|ACPI: PM: Preparing to enter system sleep state S5"
    r"|^banger: off\b",
    re.MULTILINE,
)
#: What Linux says last when it is told to power off and has no means to (kernel/reboot.c, in all versions since 2.6).
_HALT = re.compile(r"reboot: (?:System halted|Power off not available: System halted instead|Power down)\s*\Z")
#: The last is sysrq's ``b``, which asks no program and no file system first.
_REBOOT = re.compile(r"reboot: Restarting system|reboot: machine restart|sysrq: Resetting")


@dataclass(frozen=True, slots=True)
class BootMarks:
    """Seconds of guest uptime at which the init reached each mark; ``None`` while it has not."""

    init_s: float | None = None
    root_s: float | None = None
    ready_s: float | None = None
    failure: str = ""


def boot_marks(console: str) -> BootMarks:
    """Read the marks of one boot from its part of the console."""
    times: dict[str, float | None] = {}
    failure = ""
    for name, rest in _MARK.findall(console.replace("\r", "")):
        if name == "failed:":
            failure = rest
        else:
            times[name] = _seconds(rest)
    panic = _PANIC.search(console)
    if panic and not failure:
        failure = f"kernel panic: {panic[1].strip()}"
    if not failure and _HALTED.search(console):
        failure = "the kernel could not be unpacked"
    return BootMarks(times.get("init"), times.get("root"), times.get("ready"), failure)


def exit_reason(console: str) -> tuple[ExitReason, str]:
    """Why the machine ended, and a line for people, from the last lines of its console."""
    panic = _PANIC.search(console)
    if panic:
        return ExitReason.GUEST_PANIC, f"kernel panic: {panic[1].strip()}"
    if _POWER_OFF.search(console):
        return ExitReason.GUEST_POWEROFF, "the guest powered off"
    if _REBOOT.search(console):
        return ExitReason.GUEST_REBOOT, "the guest rebooted"
    return ExitReason.VMM_CRASH, "the VMM ended without a word from the guest"


def has_halted(console: str) -> bool:
    """True if the guest's kernel has said its last word, and did not end the machine with it."""
    return _HALT.search(console.replace("\r", "")) is not None


def last_lines(console: str, count: int = 5) -> str:
    """The last lines that say something, for an error's cause."""
    lines = [line.strip() for line in console.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def _seconds(text: str) -> float:
    try:
        return float(text.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return 0.0
