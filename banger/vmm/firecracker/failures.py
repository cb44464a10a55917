"""Firecracker's error messages as errors that say what to do. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import EngineError, VmmConfig
from banger.vmm import handing
from banger.vmm.firecracker.exits import last_lines


@dataclass(frozen=True, slots=True)
class _Failure:
    """A kind of failure. ``words`` and ``hint`` may name fields of the machine."""

    kind: ErrorKind
    words: str
    hint: str
    error: type[BangerError] = BangerError


#: By what Firecracker says (in any case). The first one that fits counts: some messages name the part that failed and
#: the host's reason, which tells more.
_FAILURES = {
    r"cpu[ _-]?(?:template|config)": _Failure(
        ErrorKind.INVALID,
        "this CPU or Firecracker does not take the CPU template",
        "banger config show | grep cpu_template",
    ),
    r"Cannot allocate memory|os error 12\b|mmap region|OutOfMemory": _Failure(
        ErrorKind.EXHAUSTED,
        "this host has no {memory_mib} MiB of memory to give",
        "banger vm list --json, and stop what is not needed",
    ),
    r"Open tap device failed|TapOpen|CreateTap|Error while creating ifreq|tap.*(?:busy|os error)": _Failure(
        ErrorKind.UNAVAILABLE,
        "Firecracker cannot open its tap",
        "banger doctor",
    ),
    r"/dev/kvm|KVM object|\bKvm\(|KvmContext|VmCreate|KVM_CREATE|vCPU.*(?:KVM|ioctl)": _Failure(
        ErrorKind.UNAVAILABLE,
        "KVM does not take it",
        "banger doctor --boot; or --vmm qemu",
        EngineError,
    ),
    r"KernelLoad|kernel[ _]loader|load (?:the )?kernel|ELF magic|\bElf\b|InvalidElf": _Failure(
        ErrorKind.INVALID,
        "Firecracker cannot load its kernel: it is damaged or made for another machine",
        "use another kernel: --kernel debian-cloud",
    ),
}
#: Of the jailer, which is followed by Firecracker's own words once it is done.
_JAILER = re.compile(r"^Jailer error: .*$", re.MULTILINE)
_MORE = "banger vm logs --source vmm {name}"
_GAVE_UP = _Failure(ErrorKind.UNAVAILABLE, "Firecracker gave up", _MORE)
_TOO_SLOW = _Failure(ErrorKind.TIMEOUT, "Firecracker did not get the machine running in time", _MORE)


def explain(config: VmmConfig, log: str, error: Exception, *, timed_out: bool) -> BangerError:
    """The error for a machine that did not come up; ``log`` is what Firecracker printed during this start."""
    if match := handing.NOT_HANDED.search(log):
        return handing.not_handed(config.name, match[0])
    if match := handing.NO_JAIL.search(log) or _JAILER.search(log):
        return handing.no_jail(config.name, match[0])
    known = (failure for said, failure in _FAILURES.items() if re.search(said, log, re.IGNORECASE))
    found = next(known, _TOO_SLOW if timed_out else _GAVE_UP)
    fields = {"name": config.name, "memory_mib": config.memory_mib}
    return found.error(
        found.kind,
        f'cannot start VM "{config.name}": {found.words.format(**fields)}',
        subject=config.name,
        cause=last_lines(log) or str(error),
        hint=found.hint.format(**fields),
    )
