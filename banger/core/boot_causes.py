"""Why a VM did not boot: the cause, the evidence for it in a few lines, and the next step. Pure.

What was said is read by :mod:`banger.core.boot_signs`. What was not said counts as much: a console that stays silent, a
machine that is reset before its first word, a kernel that stops in the middle of a sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from banger.core.boot_signs import Remedy, SignMatch, find_sign, without_time
from banger.core.console import boot_marks
from banger.core.exits import ExitRecord
from banger.core.models import ExitReason
from banger.core.units import format_duration
from banger.core.vmm_names import EMULATED, HARDWARE

#: Below this a distribution's kernel may be reset, or lose its initrd, without saying why (Debian 12, measured).
SMALL_MEMORY_MIB = 192
#: A host with more runnable processes than this for each CPU is busy.
BUSY_LOAD = 1.5
#: What is looked at of a console: a guest may print without end.
_LOOKED_AT = 64 * 1024
_LINES = 4
#: What the unpacker of a bzImage and the firmware say before the kernel proper does.
_BEFORE_KERNEL = re.compile(
    r"^(?:.*KASLR using.*|Probing EDD.*|SeaBIOS.*|Decompressing Linux.*|Parsing ELF.*|Performing relocations.*"
    r"|Booting from ROM.*|early console in .*|Booting the kernel.*|done\.?|\.+)$"
)
_TRACE = re.compile(
    r"Call Trace:|</?\w+>$|^\? |^ ?\w+[\w.]*\+0x|RIP: |Code: |R[A-Z0-9]{2}: |RSP: |Kernel Offset:|CPU: \d+ .*PID:"
    r"|Hardware name|---\[ end |Rebooting in|Modules linked in"
)
_OTHER_CONSOLE = re.compile(r"(?:^|\s)console=(?!ttyS0)(\S+)")
#: What :mod:`banger.actors.vm_boot` says of a boot that only took too long.
_LATE = "the guest did not come up in time"
#: The catalog's default, which boots on every machine that banger makes.
_SHIPPED_KERNEL = "debian-cloud"
#: What a kernel does whose file is damaged, depending on where: anything, before banger's init runs.
_LIKE_DAMAGE = frozenset(
    "silent silent-kvm slow slow-kvm busy-host reset reset-silent reset-kvm memory panic kernel-crashed stall timer"
    " no-initrd initrd-damaged init-missing init-for-another-processor init-ended kernel-cpu powered-off".split()
)
_NAMES = {HARDWARE: "on KVM", EMULATED: "under emulation"}


@dataclass(frozen=True, slots=True)
class BootFacts:
    """All that is known of one boot that failed.

    Attributes:
        console: what the guest printed in this boot.
        accelerator: what it ran on.
        elapsed_s: from the start of the VMM until the boot was given up.
        ended: how the VMM ended, if it did; ``None`` for one that was still running.
        vmm_log: the end of what the VMM printed.
        kernel, image: their names.
        kernel_arguments: those that the kernel brings besides banger's own.
        kernel_fault: what is wrong with the kernel's file, if somebody looked and found something.
        alternative: what to type for another machine; empty if there is none.
        host_load: runnable processes of the host for each of its CPUs; 0 if nobody knows.
        told: what whoever watched the boot says of it; it counts if nothing else tells more.
        waits_for_host: why the host does not take what the guest writes, if that is what it waited for.
        kept: the VM is still there after a failed start; otherwise advice speaks of a new one.
    """

    console: str
    accelerator: str
    elapsed_s: float
    ended: ExitRecord | None = None
    vmm_log: str = ""
    vm: str = ""
    memory_mib: int = 0
    kernel: str = ""
    image: str = ""
    kernel_arguments: str = ""
    kernel_fault: str = ""
    alternative: str = ""
    host_load: float = 0.0
    told: str = ""
    waits_for_host: str = ""
    kept: bool = True


@dataclass(frozen=True, slots=True)
class BootCause:
    """What to tell: ``key`` names the cause for programs; ``lines`` are the evidence.

    ``doubtful``: a damaged kernel may do so too; it is worth looking at its file, and asking again with the finding.
    """

    key: str
    reason: str
    lines: tuple[str, ...]
    hint: str
    doubtful: bool = False


def explain_boot(facts: BootFacts) -> BootCause:
    """The cause of a boot that failed, from the strongest evidence to the weakest."""
    console = facts.console[-_LOOKED_AT:].replace("\r", "")
    key, reason, remedy, said = _cause(facts, console)
    doubtful = key in _LIKE_DAMAGE and boot_marks(console).init_s is None
    if doubtful and facts.kernel_fault:
        key, reason, remedy = "kernel-damaged", f"the kernel's file is damaged: {facts.kernel_fault}", Remedy.KERNEL
    lines = (_circumstances(facts, console), *telling_lines(said))
    return BootCause(key, reason, lines, _hint(remedy, facts), doubtful)


_Cause = tuple[str, str, Remedy, str]


def _cause(facts: BootFacts, console: str) -> _Cause:
    if facts.waits_for_host:
        return "host-disk", facts.waits_for_host, Remedy.HOST_DISK, console
    found = find_sign(console, facts.vmm_log)
    if found is not None:
        return _by_sign(found, facts, console)
    silent = is_silent(console)
    if facts.ended is not None:
        return _ended(facts, facts.ended, console, silent=silent)
    return _silent(facts, console) if silent else _slow(facts, console)


def _by_sign(found: SignMatch, facts: BootFacts, console: str) -> _Cause:
    sign = found.sign
    small = 0 < facts.memory_mib < SMALL_MEMORY_MIB
    remedy = Remedy.MEMORY if small and sign.key in ("init-missing", "initrd-damaged", "panic") else sign.remedy
    return sign.key, found.reason, remedy, console if sign.by_vmm else found.said


def _ended(facts: BootFacts, ended: ExitRecord, console: str, *, silent: bool) -> _Cause:
    """The VMM ended and nobody said why: a signal or a status tells, or the guest was reset."""
    if ended.reason is ExitReason.OUT_OF_MEMORY:
        return "vmm-out-of-memory", ended.words, Remedy.HOST_MEMORY, console
    if ended.reason is ExitReason.KILLED:
        return "vmm-killed", f"{ended.words} while it booted", Remedy.NONE, console
    if ended.status:
        return "vmm-crashed", ended.words, Remedy.REPORT, console
    if silent and 0 < facts.memory_mib < SMALL_MEMORY_MIB:
        words = f"the machine was reset before the kernel's first word, with only {facts.memory_mib} MiB of memory"
        return "memory", words, Remedy.MEMORY, console
    if silent and facts.accelerator == HARDWARE:  # what an entry that this KVM cannot make looks like from outside
        words = "the machine was reset before the kernel's first word: this KVM cannot run it, or its file is damaged"
        return "reset-kvm", words, Remedy.EMULATION, console
    if silent:
        words = "the machine was reset before the kernel's first word, as a kernel does whose file is damaged"
        return "reset-silent", words, Remedy.KERNEL, console
    if ended.reason is ExitReason.GUEST_POWEROFF:
        return "powered-off", "the guest powered itself off while it booted", Remedy.INIT, console
    return "reset", "the machine was reset while it booted, without a word why", Remedy.KERNEL, console


def _silent(facts: BootFacts, console: str) -> _Cause:
    """It ran until it was given up, and the kernel said nothing."""
    if elsewhere := _OTHER_CONSOLE.search(facts.kernel_arguments):
        words = f'the kernel\'s own arguments send its console to "{elsewhere[1]}", so nothing is heard of it'
        return "console-elsewhere", words, Remedy.KERNEL, console
    if facts.accelerator == HARDWARE:
        return "silent-kvm", f"{_late(facts)}, and its kernel never said a word", Remedy.EMULATION, console
    words = f"{_late(facts)}, and its kernel never said a word: it does not fit, or is damaged"
    return "silent", words, Remedy.KERNEL, console


def _slow(facts: BootFacts, console: str) -> _Cause:
    """It ran until it was given up, and was on its way."""
    marks = boot_marks(console)
    place = "its kernel had not started banger's init"
    if marks.ready_s is not None and facts.host_load <= BUSY_LOAD:
        return "no-answer", "the guest is up, but its agent does not answer", Remedy.INIT, console
    if marks.ready_s is not None:
        place = "its agent does not answer"
    elif marks.root_s is not None:
        place = "its root was in place, its agent not up"
    elif marks.init_s is not None:
        place = "banger's init ran, its root was not in place"
    words = f"{_late(facts)}: {place}"
    if facts.accelerator == HARDWARE and facts.told not in ("", _LATE):
        return "slow-kvm", words, Remedy.EMULATION, console
    if facts.host_load > BUSY_LOAD:
        return (
            "busy-host",
            f"{words}; this host is busy ({facts.host_load:.1f} processes for each CPU)",
            Remedy.PATIENCE,
            console,
        )
    return "slow", words, Remedy.PATIENCE, console


def _late(facts: BootFacts) -> str:
    return _LATE if facts.told in ("", _LATE) else f"the guest was given up ({facts.told})"


def is_silent(console: str) -> bool:
    """True if nothing was said by the kernel proper or what came after it."""
    return not any(
        text and not _BEFORE_KERNEL.match(text) for text in (without_time(line) for line in console.splitlines())
    )


def telling_lines(said: str, count: int = _LINES) -> tuple[str, ...]:
    """The last lines that tell something: none of a stack trace, no half of a register dump."""
    lines = [line.strip() for line in said.splitlines()]
    return tuple([line[:300] for line in lines if line and not _TRACE.search(without_time(line))][-count:])


def _circumstances(facts: BootFacts, console: str) -> str:
    where = _NAMES.get(facts.accelerator, f"on {facts.accelerator}" if facts.accelerator else "")
    outcome = "the console stayed silent" if not console.strip() else "the console ended with:"
    if console.strip() and is_silent(console):
        outcome = "the kernel itself said nothing; the console ended with:"
    begun = f"after {format_duration(facts.elapsed_s)} {where}".rstrip()
    return f"{begun}, {outcome}"


def _hint(remedy: Remedy, facts: BootFacts) -> str:
    again = f"banger vm start {facts.vm}" if facts.kept else "run it again"
    hints = {
        Remedy.KERNEL: _another_kernel(facts.kernel),
        Remedy.MODULES: "use a kernel with its modules: --kernel debian-cloud, or banger kernel import --modules DIR",
        Remedy.MEMORY: f"give it more memory: --memory {max(256, facts.memory_mib * 2)}M",
        Remedy.HOST_MEMORY: "stop other VMs, or give this one less: --memory",
        Remedy.IMAGE: f"banger image lint {facts.image or 'IMAGE'}; then delete it and pull it again",
        Remedy.INIT: "let banger's own init run it: --init none",
        Remedy.DISK: f"create it again: banger vm delete {facts.vm}" if facts.kept else "run it again",
        Remedy.ROOM: f"banger vm grow {facts.vm} --disk SIZE" if facts.kept else "a larger disk: --disk SIZE",
        Remedy.HOST_DISK: "look at this host's disk: banger system df; dmesg | grep -i 'i/o error'",
        Remedy.EMULATION: "emulate instead: --accelerator tcg; what this host can do: banger doctor --boot",
        Remedy.MACHINE: f"another machine: {facts.alternative}" if facts.alternative else again,
        Remedy.PATIENCE: f"give it more time (vm.boot_timeout_s), or stop what keeps this host busy, and {again}",
        Remedy.NONE: again,
        Remedy.REPORT: f"keep what is known, for a bug report: banger vm why {facts.vm} --bundle FILE",
    }
    return hints[remedy]


def _another_kernel(kernel: str) -> str:
    if kernel == _SHIPPED_KERNEL:
        return f"fetch the kernel again: banger kernel delete --force {kernel}, and run it again"
    return f"use another kernel: --kernel {_SHIPPED_KERNEL}"
