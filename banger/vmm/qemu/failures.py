"""QEMU's error messages as errors that say what to do. Pure."""

from __future__ import annotations

import re

from banger.core.errors import BangerError, ErrorKind
from banger.core.names import PORTS_LOG_PREFIX
from banger.core.ports import EngineError, VmmConfig
from banger.vmm import handing
from banger.vmm.exits import Asked

_NO_MEMORY = re.compile(r"cannot set up guest memory|Cannot allocate memory|Failed to allocate memory", re.IGNORECASE)
#: KVM that cannot be had: another hypervisor holds it, the device went away, a part of it is missing.
_NO_KVM = re.compile(
    r"failed to initialize kvm|ioctl\(KVM_\w+\)|/dev/kvm|kvm_\w+: Assertion|failed to set MSR", re.IGNORECASE
)
#: QEMU takes some signals as a wish, says so and exits well (QEMU: softmmu/runstate.c).
_TERMINATED = re.compile(r"terminating on signal (\d+)(?: from pid (\d+))?")
_DISK_IN_USE = re.compile(r"Failed to get .*lock|Is another process using the image")
_KERNEL = re.compile(
    r"loading elf kernel|invalid kernel header|could not load kernel|linux kernel too old|bImage|ENTRY note"
)
#: What was saved is not what the machine is, or not whole (QEMU: ``migration/savevm.c``, ``migration/ram.c``).
_NOT_LOADED = re.compile(r"load of migration failed|error while loading state|while loading VM state")
_PROGRAM = re.compile(r"^\S*qemu-system-\w+: (error: )?")
#: Printed when KVM cannot go on with a guest; QEMU lives on then and its machine stands still, in the state
#: ``internal-error`` (QEMU: ``accel/kvm/kvm-all.c``, ``target/i386/kvm/kvm.c``).
_KVM_FAILURE = re.compile(
    r"^(?:KVM internal error.*|KVM: entry failed.*|error: kvm run failed.*|emulation failure)$", re.MULTILINE
)
_MOST_LINES = 3


def explain(config: VmmConfig, log: str, error: Exception, *, timed_out: bool) -> BangerError:
    """The error for a machine that did not come up; ``log`` is what QEMU printed during this start."""
    name = config.name
    words = last_lines(log) or str(error)
    if _NO_MEMORY.search(log):
        return BangerError(
            ErrorKind.EXHAUSTED,
            f'cannot start VM "{name}": this host has no {config.memory_mib} MiB of memory to give',
            subject=name,
            cause=words,
            hint="banger vm list --json, and stop what is not needed",
        )
    if _DISK_IN_USE.search(log):
        return BangerError(
            ErrorKind.CONFLICT,
            f'cannot start VM "{name}": another process uses its disk',
            subject=name,
            cause=words,
            hint="banger system reconcile",
        )
    if match := handing.NOT_HANDED.search(log):
        return handing.not_handed(name, match[0])
    if (match := handing.NO_JAIL.search(log)) and not _NO_KVM.search(match[0]):
        return handing.no_jail(name, match[0])
    if config.accelerator == "kvm" and _NO_KVM.search(log):
        return EngineError(
            ErrorKind.UNAVAILABLE,
            f'cannot start VM "{name}": KVM does not take it',
            subject=name,
            cause=words,
            hint="banger doctor --boot; or --accelerator tcg, which is slower",
        )
    if _KERNEL.search(log):
        return BangerError(
            ErrorKind.INVALID,
            f'cannot start VM "{name}": QEMU cannot load its kernel, which is damaged or made for another machine',
            subject=name,
            cause=words,
            hint="use another kernel: --kernel debian-cloud",
        )
    if _NOT_LOADED.search(log):
        return BangerError(
            ErrorKind.INVALID,
            f'cannot start VM "{name}": QEMU cannot load its saved state, which is damaged or of another machine',
            subject=name,
            cause=words,
            hint="start a VM from an image, or from another snapshot",
        )
    kind = ErrorKind.TIMEOUT if timed_out else ErrorKind.UNAVAILABLE
    what = "QEMU did not get the machine running in time" if timed_out else "QEMU gave up"
    return BangerError(
        kind,
        f'cannot start VM "{name}": {what}',
        subject=name,
        cause=words,
        hint=f"banger vm logs --source vmm {name}",
    )


def tells_of_disk_in_use(log: str) -> bool:
    """True if QEMU could not take a disk for itself."""
    return bool(_DISK_IN_USE.search(log))


def ended_by_signal(words: str) -> Asked | None:
    """The signal that QEMU says it ended on, if it does."""
    found = _TERMINATED.search(words)
    return Asked(int(found[1]), int(found[2] or 0)) if found else None


def kvm_failure(log: str) -> str:
    """What QEMU printed of a guest that KVM could not go on with, in one line; empty if there is no such thing."""
    return "; ".join(dict.fromkeys(line.strip() for line in _KVM_FAILURE.findall(log)))


def cannot_execute(binary: str, error: OSError) -> BangerError:
    """The error for a QEMU that is not there or may not be run."""
    return BangerError(
        ErrorKind.UNAVAILABLE,
        f'cannot run "{binary}"',
        subject=binary,
        cause=error.strerror or str(error),
        hint="apt-get install qemu-system-x86",
    )


def last_lines(log: str) -> str:
    """The last lines that say something, without the name of the program, joined into one."""
    return "; ".join(_lines(log)[-_MOST_LINES:])


def first_line(log: str) -> str:
    """The first line that says something: what went wrong before anything else did."""
    return next(iter(_lines(log)), "")


def _lines(log: str) -> list[str]:
    lines = (line.strip() for line in log.splitlines() if not line.startswith(PORTS_LOG_PREFIX))
    return [_PROGRAM.sub("", line) for line in lines if line]
