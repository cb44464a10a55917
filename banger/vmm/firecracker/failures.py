"""Firecracker's error messages as errors that say what to do. Pure."""

from __future__ import annotations

import re

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import EngineError, VmmConfig
from banger.vmm import handing
from banger.vmm.firecracker.exits import last_lines

_NO_KVM = re.compile(r"/dev/kvm|KVM object|\bKvm\(|KvmContext|VmCreate|KVM_CREATE|vCPU.*(?:KVM|ioctl)", re.IGNORECASE)
_NO_MEMORY = re.compile(r"Cannot allocate memory|os error 12\b|mmap region|OutOfMemory", re.IGNORECASE)
_TAP = re.compile(
    r"Open tap device failed|TapOpen|CreateTap|Error while creating ifreq|tap.*(?:busy|os error)", re.IGNORECASE
)
_KERNEL = re.compile(r"KernelLoad|kernel[ _]loader|load (?:the )?kernel|ELF magic|\bElf\b|InvalidElf", re.IGNORECASE)
_CPU_TEMPLATE = re.compile(r"[Cc]pu[ _-]?(?:[Tt]emplate|[Cc]onfig)")


def explain(config: VmmConfig, log: str, error: Exception, *, timed_out: bool) -> BangerError:
    """The error for a machine that did not come up; ``log`` is what Firecracker printed during this start."""
    name, words = config.name, last_lines(log) or str(error)
    if match := handing.NOT_HANDED.search(log):
        return handing.not_handed(name, match[0])
    if match := handing.NO_JAIL.search(log):
        return handing.no_jail(name, match[0])
    if _CPU_TEMPLATE.search(log):
        return BangerError(
            ErrorKind.INVALID, f'cannot start VM "{name}": this CPU or Firecracker does not take the CPU template',
            subject=name, cause=words, hint="banger config show | grep cpu_template",
        )  # fmt: skip
    if _NO_MEMORY.search(log):
        return BangerError(
            ErrorKind.EXHAUSTED,
            f'cannot start VM "{name}": this host has no {config.memory_mib} MiB of memory to give',
            subject=name, cause=words, hint="banger vm list --json, and stop what is not needed",
        )  # fmt: skip
    if _TAP.search(log):
        return BangerError(
            ErrorKind.UNAVAILABLE, f'cannot start VM "{name}": Firecracker cannot open its tap',
            subject=name, cause=words, hint="banger doctor",
        )  # fmt: skip
    if _NO_KVM.search(log):
        return EngineError(
            ErrorKind.UNAVAILABLE, f'cannot start VM "{name}": KVM does not take it',
            subject=name, cause=words, hint="banger doctor --boot; or --vmm qemu",
        )  # fmt: skip
    if _KERNEL.search(log):
        return BangerError(
            ErrorKind.INVALID,
            f'cannot start VM "{name}": Firecracker cannot load its kernel: it is damaged or made for another machine',
            subject=name, cause=words, hint="use another kernel: --kernel debian-cloud",
        )  # fmt: skip
    kind = ErrorKind.TIMEOUT if timed_out else ErrorKind.UNAVAILABLE
    what = "Firecracker did not get the machine running in time" if timed_out else "Firecracker gave up"
    return BangerError(
        kind, f'cannot start VM "{name}": {what}', subject=name, cause=words,
        hint=f"banger vm logs --source vmm {name}",
    )  # fmt: skip
