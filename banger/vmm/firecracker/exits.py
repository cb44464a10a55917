"""How a Firecracker process ended, from its status and its log. Pure."""

from __future__ import annotations

import re
from dataclasses import replace

from banger.core.exits import ExitRecord, Outcome
from banger.core.models import ExitReason
from banger.vmm.exits import explain_exit

#: Firecracker: ``src/vmm/src/lib.rs``, ``FcExitCode``.
_CODES = {
    148: "its seccomp filter did not allow a system call that it made",
    149: "a part of its memory, or of a file in it, could not be had (SIGBUS)",
    150: "it used memory that is not its own (SIGSEGV)",
    151: "a file grew beyond its limit (SIGXFSZ)",
    152: "it does not take its configuration",
    153: "it does not take its arguments",
    154: "it used up its processor time (SIGXCPU)",
    155: "nobody read what it wrote (SIGPIPE)",
    157: "it came to an instruction that this CPU does not have (SIGILL)",
}
#: SIGHUP, which nobody sends by mistake.
_HANGUP = 156
#: The last line of its log; the only record of how it ended where it is nobody's child.
_ENDED = re.compile(r"Firecracker exiting (?:successfully\.|with error\.) exit_code=(\d+)")
_SYSCALL = re.compile(r"intercepting a bad syscall \((\d+)\)")
#: What it says of a guest that KVM could not go on with (Firecracker: ``src/vmm/src/vstate/vcpu``).
_KVM_FAILURE = re.compile(
    r"Received KVM_EXIT_(?:FAIL_ENTRY|INTERNAL_ERROR)[^\n]*|[Ff]ailed to run (?:the )?v[Cc]pu[^\n]*"
    r"|[Uu]nexpected exit reason on vcpu run[^\n]*|Failure during vcpu run[^\n]*|VCPU_EXIT_FAULTY[^\n]*"
)
#: Date and time, and who speaks: ``2026-11-28T17:00:00.000000000 [banger-vm-…:main]``.
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[[^\]]*\] ?")
#: It says so in nearly every start, and it means nothing.
_NOISE = re.compile(r"immediate_exit was disabled before proceeding")
_MOST_LINES = 3


def explain(outcome: Outcome, console: str, log: str) -> ExitRecord:
    """Why a machine ended.

    Args:
        outcome: of the process.
        console: what the guest printed since it was started.
        log: what Firecracker printed since then.
    """
    if outcome.status is None and (said := _ENDED.findall(log)):
        outcome = replace(outcome, status=int(said[-1]))
    status = outcome.status
    if failure := kvm_failure(log):
        return ExitRecord(ExitReason.KVM_FAILURE, f"KVM cannot go on with the guest: {failure}", status)
    if outcome.out_of_memory or status not in {*_CODES, _HANGUP}:
        return explain_exit(outcome, console, last_lines(log))
    if status == _HANGUP:
        return ExitRecord(ExitReason.KILLED, "the VMM was ended with SIGHUP", status)
    words = _CODES[status]
    if status == 148 and (number := _SYSCALL.search(log)):
        words += f" (number {number[1]})"
    return ExitRecord(ExitReason.VMM_CRASH, f"Firecracker ended: {words}, status {status}", status)


def kvm_failure(log: str) -> str:
    """What Firecracker said of a guest that KVM could not go on with; empty if there is no such thing."""
    found = _KVM_FAILURE.search(log)
    return " ".join(found[0].split())[:300] if found else ""


def last_lines(log: str) -> str:
    """The last lines that say something, joined into one."""
    lines = [_STAMP.sub("", line.strip("\0 \t\r")) for line in log.splitlines()]
    telling = [line for line in lines if line and not (_ENDED.search(line) or _NOISE.search(line))]
    return "; ".join(telling[-_MOST_LINES:])
