"""Patterns in a guest's console or its VMM's log when a boot fails, each with a cause and a remedy. Pure.

The words are those of Linux (``arch/x86/boot/compressed``, ``lib/decompress_*``, ``init/``, ``kernel/panic.c``,
``fs/ext4``), of QEMU and Firecracker, and of banger's own init (``guest/data``). A row names a kind of fault, never one
kernel. The first row that fits wins, so what is told apart more finely stands further up.

A guest writes its console, so no pattern may take more than linear time: none begins with a repetition, and what spans
lines is two patterns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Remedy(Enum):
    """Kinds of next steps; :mod:`banger.core.boot_causes` words them for one VM."""

    KERNEL = auto()  # another one, or this one anew
    MODULES = auto()  # a kernel with its drivers
    MEMORY = auto()  # more of it for the guest
    HOST_MEMORY = auto()
    IMAGE = auto()
    INIT = auto()  # not the image's own
    DISK = auto()  # the VM's is damaged
    ROOM = auto()  # on the VM's disk
    HOST_DISK = auto()
    EMULATION = auto()
    MACHINE = auto()
    PATIENCE = auto()
    REPORT = auto()
    NONE = auto()


@dataclass(frozen=True, slots=True)
class Sign:
    """A row.

    Attributes:
        key: names the cause for programs and tests.
        pattern: what is said, in the console or, if ``by_vmm``, in the VMM's log.
        reason: ends the sentence "the VM did not boot: …". ``{0}`` stands for the pattern's first group, ``{line}`` for
            the line it was found in, ``{before}`` for the last line before that.
        and_also: what must be said too, anywhere.
    """

    key: str
    pattern: re.Pattern[str]
    reason: str
    remedy: Remedy
    and_also: re.Pattern[str] | None = None
    by_vmm: bool = False


def _console(key: str, remedy: Remedy, reason: str, pattern: str, and_also: str = "") -> Sign:
    return Sign(key, re.compile(pattern), reason, remedy, re.compile(and_also) if and_also else None)


def _vmm(key: str, remedy: Remedy, reason: str, pattern: str) -> Sign:
    return Sign(key, re.compile(pattern), reason, remedy, by_vmm=True)


_PANIC = r"Kernel panic - not syncing: "
_FAILED = r"banger: failed: "
_NO_ROOT_MOUNT = _FAILED + r"cannot mount the (?:root|writable|home) disk"
_CRASHED = r"(?:BUG: (?!soft lockup)|general protection fault|Oops: |kernel BUG at |divide error: |invalid opcode: )"
_EXT4 = r"EXT4-fs (?:error|\()|JBD2: |Aborting journal|Can't find ext4 filesystem"
_NO_ROOM = r"No space left on device"
_READ_ONLY = r"Remounting filesystem read-only|Read-only file system"
_IO = r"I/O error, dev |Buffer I/O error"
_DAMAGED = "the VM's disk is damaged: {line}"

SIGNS: Sequence[Sign] = (
    # -- the VMM ---------------------------------------------------------------------------------------
    _vmm(
        "kvm-entry", Remedy.EMULATION, "KVM could not enter the guest: {line}",
        r"KVM: entry failed, hardware error|KVM_EXIT_FAIL_ENTRY|[Ff]ailed entry|FailEntry",
    ),
    _vmm(
        "kvm-internal", Remedy.EMULATION, "KVM failed while it ran the guest: {line}",
        r"KVM internal error|KVM_EXIT_INTERNAL_ERROR|emulation failure|Unexpected exit reason on vcpu run"
        r"|kvm run failed",
    ),
    _vmm(
        "kernel-not-loadable", Remedy.KERNEL,
        "the VMM cannot load the kernel's file: it is damaged, or made for another machine",
        r"loading elf kernel|invalid kernel header|could not load kernel|linux kernel too old|Cannot load kernel"
        r"|[Kk]ernel [Ll]oader|Invalid Elf magic",
    ),
    _vmm("host-disk-full", Remedy.HOST_DISK, "the host's disk is full", r"No space left on device|ENOSPC|nospace"),
    # -- before the kernel's first line: the unpacker of a bzImage ---------------------------------------
    _console(
        "memory", Remedy.MEMORY, "the guest has too little memory for its kernel to be unpacked: {before}",
        r"-- System halted", r"Out of memory|ran out of memory|[Nn]ot enough memory",
    ),
    _console("kernel-damaged", Remedy.KERNEL, "the kernel's file is damaged: {before}", r"-- System halted"),
    _console(
        "kernel-cpu", Remedy.KERNEL, "the kernel is for another processor: {line}",
        r"This kernel requires an? |use a kernel appropriate for your CPU",
    ),
    # -- panics ----------------------------------------------------------------------------------------
    _console(
        "memory", Remedy.MEMORY, "the guest ran out of memory while it booted: {0}",
        _PANIC + r"((?:System is deadlocked on memory|Out of memory|out of memory)[^\n]{0,80})",
    ),
    _console(
        "memory", Remedy.MEMORY, "the guest has too little memory for its initrd: {line}",
        r"Initramfs unpacking failed: write error|swapper/\d+ invoked oom-killer|initrd extends beyond end of memory",
        _PANIC,
    ),
    _console(
        "memory", Remedy.MEMORY, "the guest ran out of memory while it booted: {line}",
        r"Out of memory: Killed process", _PANIC,
    ),
    _console(
        "initrd-damaged", Remedy.REPORT, "the kernel cannot unpack the initrd: {line}",
        r"Initramfs unpacking failed: |RAMDISK: .{0,40}compress|uncompression error|-compressed data is corrupt",
        _PANIC,
    ),
    _console(
        "init-for-another-processor", Remedy.KERNEL, "the guest's processor cannot execute its init: {line}",
        r"Failed to execute \S+ \(error -8\)|Exec format error", _PANIC,
    ),
    _console(
        "init-missing", Remedy.REPORT, "the kernel found no init that it could execute: {line}",
        r"Failed to execute \S+ \(error -\d+\)|Requested init \S+ failed", _PANIC,
    ),
    _console("init-missing", Remedy.REPORT, "the kernel found no init that it could execute",
             _PANIC + r"No working init found|" + _PANIC + r"No init found"),
    _console(
        "no-initrd", Remedy.MODULES, "the kernel did not start banger's init from the initrd and found no root: {line}",
        _PANIC + r"VFS: Unable to mount root fs",
    ),
    _console("init-ended", Remedy.INIT, "the guest's init ended: {0}",
             _PANIC + r"(Attempted to kill (?:init|the idle task)![^\n]{0,80})"),
    _console("timer", Remedy.MACHINE, "the kernel finds no timer that works on this machine",
             _PANIC + r"IO-APIC \+ timer doesn't work"),
    _console("stall", Remedy.PATIENCE, "the guest stood still: {0}",
             _PANIC + r"((?:RCU Stall|hung_task|softlockup|[Hh]ard LOCKUP)[^\n]{0,80})"),
    _console("kernel-crashed", Remedy.KERNEL, "the kernel crashed: {line}", _CRASHED, _PANIC),
    _console("panic", Remedy.KERNEL, "kernel panic: {0}", _PANIC + r"([^\n]{0,200})"),
    # -- banger's init, which says what it could not do; the kernel says why ------------------------------
    _console("no-disk-driver", Remedy.MODULES, "the kernel has no driver for the machine's disks: {0}",
             _FAILED + r"(no disk with the label[^\n]{0,40})"),
    _console("host-io", Remedy.HOST_DISK, "the host cannot read the VM's disk: {line}", _IO, _FAILED),
    _console("image-damaged", Remedy.IMAGE, "the image's file system is damaged: {line}", _EXT4,
             _FAILED + r"cannot mount the image"),
    _console("disk-damaged", Remedy.DISK, _DAMAGED, _EXT4, _NO_ROOT_MOUNT),
    _console("disk-full", Remedy.ROOM, "the VM's disk is full: {line}", _NO_ROOM, _FAILED),
    _console("read-only", Remedy.DISK, "the VM's disk can only be read: {line}", _READ_ONLY, _FAILED),
    _console("no-overlay", Remedy.MODULES, "{0}", _FAILED + r"(cannot mount the overlay[^\n]{0,80})"),
    _console("no-devtmpfs", Remedy.KERNEL, "{0}", _FAILED + r"(the kernel has no \w+)"),
    _console("image-not-mounted", Remedy.IMAGE, "{0}", _FAILED + r"(cannot mount the image[^\n]{0,80})"),
    _console("disk-not-mounted", Remedy.DISK, "{0}", _FAILED + r"(cannot mount the \w+ disk[^\n]{0,80})"),
    _console("no-init-in-image", Remedy.INIT, "{0}", _FAILED + r"(the image has no /sbin/init)"),
    _console("init-failed", Remedy.REPORT, "{0}", _FAILED + r"([^\n]{0,200})"),
    # -- what a boot may survive; it explains one that did not go on --------------------------------------
    _console("memory", Remedy.MEMORY, "the guest ran out of memory while it booted: {line}",
             r"Out of memory: Killed process|page allocation failure"),
    _console("memory", Remedy.MEMORY, "the guest has too little memory for its kernel and initrd: {line}",
             r"Physical KASLR disabled: no suitable memory region"),
    _console("kernel-crashed", Remedy.KERNEL, "the kernel crashed: {line}", _CRASHED),
    _console("host-io", Remedy.HOST_DISK, "the host cannot read the VM's disk: {line}", _IO),
    _console("disk-damaged", Remedy.DISK, _DAMAGED,
             r"EXT4-fs error|JBD2: (?:[Ee]rror|recovery failed)|Aborting journal"),
    _console("disk-full", Remedy.ROOM, "the VM's disk is full: {line}", _NO_ROOM),
    _console("read-only", Remedy.DISK, "the VM's disk can only be read: {line}", _READ_ONLY),
    _console("stall", Remedy.PATIENCE, "the guest stood still: {line}",
             r"rcu: INFO: \w+ .{0,40}stall|BUG: soft lockup|blocked for more than \d+ seconds"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignMatch:
    """A row that fits: its reason in full, and the part of the console up to the line that tells."""

    sign: Sign
    reason: str
    said: str


def find_sign(console: str, vmm_log: str) -> SignMatch | None:
    """The first row that fits what was said."""
    for sign in SIGNS:
        text = vmm_log if sign.by_vmm else console
        match = sign.pattern.search(text)
        if match and (sign.and_also is None or sign.and_also.search(text)):
            return SignMatch(sign, _filled(sign.reason, text, match), text[: _line_end(text, match.end())])
    return None


_LONGEST_LINE = 200
_KERNEL_TIME = re.compile(r"^(?:<\d>)?\[ *\d+\.\d+\](?:\[ *T\d+\])? *")


def _filled(reason: str, text: str, match: re.Match[str]) -> str:
    start = max(text.rfind("\n", 0, match.start()) + 1, match.start() - _LONGEST_LINE)
    line = text[start : min(_line_end(text, match.end()), match.end() + _LONGEST_LINE)]
    before = next((one for one in reversed(text[max(0, start - 4096) : start].splitlines()) if one.strip()), "")
    words = match[1] if match.re.groups and match[1] else ""
    return reason.format(words.strip(), line=without_time(line), before=without_time(before)).removesuffix(": ")


def without_time(line: str) -> str:
    """A console line without the kernel's time stamp."""
    return _KERNEL_TIME.sub("", line.strip())[:_LONGEST_LINE]


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end
