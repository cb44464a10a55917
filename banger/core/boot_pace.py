"""How fast a guest must boot whose kernel has not been seen to boot here before. Pure.

That a machine is silent for a while tells nothing by itself: a busy host gives it no time. So what is counted is the
processor time that its VMM was given; and only where that is next to none, because the guest waits for something that
never comes, the clock on the wall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from banger.core.console import BootMarks

#: So many times longer than its processor time may a machine be silent by the clock.
_WALL_FACTOR = 10.0
#: What a kernel may work in silence for each GiB of its memory, in seconds: it fills 16 MiB of page descriptors, for
#: which the host has to give it every page. Hardware takes a hundredth of a second, KVM within KVM ten times as long.
_MEMORY_S = 0.15


@dataclass(frozen=True, slots=True)
class BootPace:
    """Bounds for one boot, in seconds of processor time.

    Attributes:
        silence_s: between two signs of life on the console.
        init_s: until the first program of the guest speaks.
        ready_s: until the guest is up, as banger's init sees it.
        emulated_s: what emulation needs for the same, for people.
    """

    silence_s: float
    init_s: float
    ready_s: float
    emulated_s: float


@dataclass(frozen=True, slots=True)
class BootProgress:
    """What is seen of a boot so far.

    Attributes:
        marks: what its init has said.
        cpu_s: processor time that the VMM has used.
        silent_cpu_s: of that, since the last sign of life.
        silent_s: seconds since the last sign of life.
    """

    marks: BootMarks
    cpu_s: float
    silent_cpu_s: float
    silent_s: float


def with_memory(pace: BootPace, memory_mib: int) -> BootPace:
    """The pace of a machine with so much memory."""
    more_s = _MEMORY_S * memory_mib / 1024
    return replace(pace, silence_s=pace.silence_s + more_s, init_s=pace.init_s + more_s, ready_s=pace.ready_s + more_s)


def stall(pace: BootPace, progress: BootProgress) -> str:
    """Why this boot is given up, in one line; empty while it goes at the pace."""
    if progress.silent_cpu_s > pace.silence_s:
        return f"its console was silent while the VMM worked for {progress.silent_cpu_s:.1f} s"
    if progress.silent_s > pace.silence_s * _WALL_FACTOR:
        return f"its console was silent for {progress.silent_s:.0f} s"
    at_init = progress.marks.init_s is not None
    if progress.cpu_s > (pace.ready_s if at_init else pace.init_s):
        where = "it was not up" if at_init else "its first program did not run"
        return f"{where} after {progress.cpu_s:.1f} s of work, for which emulation takes {pace.emulated_s:.1f} s"
    return ""
