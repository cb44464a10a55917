"""Why a machine ended, from contradicting witnesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.models import ExitReason
from banger.launch import Outcome
from banger.vmm.exits import explain_exit
from banger.vmm.kernel_log import records, was_oom_killed
from banger.vmm.qemu.failures import ended_by_signal

OFF = "[   12.3] reboot: Power down\n"
PANIC = "Kernel panic - not syncing: Attempted to kill init!\n"
TERMINATED = "terminating on signal 15 from pid 77 (systemctl)"


@pytest.mark.parametrize(
    ("outcome", "console", "vmm", "reason", "words"),
    [
        (Outcome(0), OFF, "", ExitReason.GUEST_POWEROFF, "powered off"),
        (Outcome(None), OFF, "", ExitReason.GUEST_POWEROFF, "powered off"),
        (Outcome(0), PANIC, "", ExitReason.GUEST_PANIC, "Attempted to kill init"),
        (Outcome(0), "", TERMINATED, ExitReason.KILLED, "SIGTERM by process 77"),
        (Outcome(0), OFF, TERMINATED, ExitReason.GUEST_POWEROFF, "powered off"),
        (Outcome(-9), "", "", ExitReason.KILLED, "SIGKILL"),
        (Outcome(-15), "", "", ExitReason.KILLED, "SIGTERM"),
        (Outcome(-11), OFF, "", ExitReason.VMM_CRASH, "SIGSEGV"),
        (Outcome(-6), "", "Assertion failed", ExitReason.VMM_CRASH, "SIGABRT: Assertion failed"),
        (Outcome(-200), "", "", ExitReason.VMM_CRASH, "signal 200"),
        (Outcome(1), OFF, "no disk", ExitReason.VMM_CRASH, "status 1: no disk"),
        (Outcome(-9, out_of_memory=True), OFF, "", ExitReason.OUT_OF_MEMORY, "memory ran out"),
        (Outcome(None), "", "", ExitReason.VMM_CRASH, "without a word"),
    ],
)
def test_cause_of_an_exit(outcome: Outcome, console: str, vmm: str, reason: ExitReason, words: str) -> None:
    record = explain_exit(outcome, console, vmm, ended_by_signal)
    assert record.reason is reason
    assert words in record.words
    assert record.status == outcome.status


HOST_WIDE = "3,1,5000000,-;Out of memory: Killed process 42 (qemu-system-x86) total-vm:1kB"
IN_A_CGROUP = "3,1,5000000,-;Memory cgroup out of memory: Killed process 42 (qemu-system-x86) total-vm:1kB"


@pytest.mark.parametrize(
    ("record", "pid", "since_s", "expected"),
    [
        (HOST_WIDE, 42, 4.0, True),
        (IN_A_CGROUP, 42, 4.0, True),
        (HOST_WIDE, 42, 6.0, False),  # an earlier process with this id
        (HOST_WIDE, 4, 4.0, False),
        ("6,2,5000000,-;somebody says Killed process 42 (x)", 42, 4.0, False),
    ],
)
def test_kernel_log_tells_of_a_killed_process(record: str, pid: int, since_s: float, expected: bool) -> None:
    assert was_oom_killed(iter([record]), pid, since_s) is expected


def test_kernel_log_that_may_not_be_read_tells_nothing(tmp_path: Path) -> None:
    assert list(records(tmp_path / "kmsg")) == []
