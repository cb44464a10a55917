from __future__ import annotations

import pytest

from banger.core.boot_pace import BootPace, BootProgress, stall, with_memory
from banger.core.console import BootMarks

PACE = BootPace(silence_s=2.0, init_s=6.0, ready_s=9.0, emulated_s=3.0)
NO_MARKS = BootMarks()
AT_INIT = BootMarks(init_s=0.5)


def progress(
    marks: BootMarks = NO_MARKS, *, cpu_s: float = 0.0, silent_cpu_s: float = 0.0, silent_s: float = 0.0
) -> BootProgress:
    return BootProgress(marks, cpu_s, silent_cpu_s, silent_s)


@pytest.mark.parametrize(
    "seen",
    [
        progress(),
        progress(cpu_s=5.9, silent_cpu_s=1.9, silent_s=9.0),
        progress(AT_INIT, cpu_s=8.9),
        progress(silent_s=9.9),
    ],
)
def test_boot_within_its_bounds_goes_on(seen: BootProgress) -> None:
    assert stall(PACE, seen) == ""


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (progress(cpu_s=3.0, silent_cpu_s=2.1, silent_s=2.2), "silent while the VMM worked for 2.1 s"),
        (progress(cpu_s=0.1, silent_cpu_s=0.1, silent_s=21.0), "silent for 21 s"),
        (progress(cpu_s=6.1), "its first program did not run after 6.1 s of work, for which emulation takes 3.0 s"),
        (progress(AT_INIT, cpu_s=9.1), "it was not up after 9.1 s of work"),
    ],
)
def test_boot_that_is_silent_or_crawls_is_given_up_with_what_was_seen(seen: BootProgress, words: str) -> None:
    assert words in stall(PACE, seen)


def test_boot_on_a_host_that_gives_it_no_time_is_not_given_up() -> None:
    assert stall(PACE, progress(cpu_s=0.2, silent_cpu_s=0.1, silent_s=8.0)) == ""


@pytest.mark.parametrize("gib", [16, 256, 4096])
def test_large_machine_may_prepare_its_memory_in_silence(gib: int) -> None:
    busy_s = 0.1 * gib  # KVM within KVM
    assert not stall(with_memory(PACE, gib * 1024), progress(cpu_s=busy_s, silent_cpu_s=busy_s, silent_s=busy_s))
    assert stall(with_memory(PACE, gib * 1024), progress(cpu_s=3 * busy_s + 9, silent_cpu_s=3 * busy_s + 9))


def test_small_machine_is_given_hardly_more_time() -> None:
    assert with_memory(PACE, 512).silence_s < PACE.silence_s + 0.1
