"""The evidence that is kept of a VM that did not boot or ended by itself, to explain it after the VM is gone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import ExitRecord
from banger.core.models import ExitReason, Image, Kernel, Vm
from banger.core.ports.host import Handle
from banger.core.progress import StepTiming

#: Beside a VM's logs: the command line and the version of its VMM, as the driver that started it wrote it down.
COMMAND_FILE = "vmm-command.json"


class Happened(StrEnum):
    """What went wrong; ``asked``: nothing, somebody wants to know how a VM is."""

    CREATE = "create"
    START = "start"
    EXIT = "exit"
    ASKED = "asked"


@dataclass(frozen=True, slots=True)
class Incident:
    """What an owner knows when it happens; the rest is gathered from the VM's files.

    Attributes:
        vm: its row by then.
        words: one line for people.
        error: what the user is told, if anybody waits.
        ended: how the VMM ended, if it did.
        handles: what the VM holds, before it is taken down.
        steps: of the start that failed, or of the last one.
        error_counters: of its VMM.
    """

    happened: Happened
    vm: Vm
    words: str
    error: BangerError | None = None
    ended: ExitRecord | None = None
    image: Image | None = None
    kernel: Kernel | None = None
    handles: tuple[Handle, ...] = ()
    steps: tuple[StepTiming, ...] = ()
    accelerator: str = ""
    error_counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A record. Nothing in it is secret: see :mod:`banger.core.redaction`.

    Attributes:
        vm: the row, its spec without the values of its environment.
        words, cause, hint: as its user was told.
        image, kernel: ``id``, ``name``, ``digest`` and more, as far as they were known.
        versions: of ``banger``, the ``vmm`` and the ``host`` kernel.
        command: the VMM's command line.
        error_counters: what the VMM itself has counted, see :class:`banger.core.ports.VmmDriver`.
        console, vmm_log: the last boot's part of them, or the begin and the end of it.
    """

    id: str
    at: datetime
    happened: Happened
    vm: Vm
    words: str
    cause: str = ""
    hint: str = ""
    error_kind: str = ""
    exit_reason: ExitReason = ExitReason.NONE
    exit_status: int | None = None
    accelerator: str = ""
    image: Mapping[str, str] = field(default_factory=dict)
    kernel: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[StepTiming, ...] = ()
    handles: tuple[Mapping[str, str], ...] = ()
    command: tuple[str, ...] = ()
    error_counters: Mapping[str, int] = field(default_factory=dict)
    console: str = ""
    vmm_log: str = ""

    @property
    def name(self) -> str:
        """The VM's."""
        return self.vm.name


#: A user's own slip, which the error tells in full.
_SLIPS = frozenset({ErrorKind.USAGE, ErrorKind.NOT_FOUND, ErrorKind.AMBIGUOUS, ErrorKind.CANCELLED})


def failure_is_kept(error: BaseException, *, was_launched: bool) -> bool:
    """True if there is more to know than the error says: always, once a VMM was started."""
    return was_launched or not (isinstance(error, BangerError) and error.kind in _SLIPS)


_BEGIN = {
    Happened.CREATE: "it could not be made",
    Happened.START: "it did not come up",
    Happened.EXIT: "it ended by itself",
    Happened.ASKED: "as it is now",
}


def sentence(evidence: Evidence) -> str:
    """What happened, for people; an error says it in a sentence of its own."""
    if evidence.error_kind:
        return evidence.words
    return f"{_BEGIN[evidence.happened]}: {evidence.words}"


def next_step(evidence: Evidence) -> str:
    """What to type, now that the VM may be gone."""
    if evidence.hint:
        return evidence.hint
    if evidence.exit_reason is ExitReason.OUT_OF_MEMORY:
        return "stop other VMs, or make it with less --memory"
    if evidence.exit_reason is ExitReason.KILLED:
        return "run it again; who sent the signal is in the host's own log: journalctl"
    return f"banger vm why {evidence.id} --bundle FILE keeps this for a bug report"
