"""Templates: machines that banger saves of its own accord right after they have booted, for later starts to go on from.

What a template can stand for, and for which starts, is decided here. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from banger.core.models import Snapshot, Vm, VmState
from banger.core.vmm_names import FIRECRACKER
from banger.core.wire.vm_spec import VmSpec

#: Raise it when what a guest is told while it boots changes by code alone, or how a copy is made somebody else.
FORM = 1

#: Starts count together that are no further apart; and a template that nobody has used for so long goes.
_COUNTED, KEPT = timedelta(days=1), timedelta(days=7)
#: One that could not be made is not tried again before that.
_PAUSE = timedelta(hours=1)
#: There are never more.
MOST = 8


@dataclass(frozen=True, slots=True)
class Template:
    """A machine that has booted and that nobody has used: ``templates/ID/`` holds it as a snapshot is held.

    Attributes:
        key: says all that the boot depended on, see :func:`key_of`.
        snapshot: what was saved; its name is empty.
        used_at: when a VM was last started from it.
        uses: how often that was.
    """

    id: str
    key: str
    image_id: str
    kernel_id: str
    snapshot: Snapshot
    created_at: datetime
    used_at: datetime
    uses: int = 0

    @property
    def name(self) -> str:
        """It has none that anybody could choose."""
        return self.id


@dataclass(frozen=True, slots=True)
class Wish:
    """Starts that a template could have been used for.

    Attributes:
        id: the key of that template.
        spec: what would be booted for it, see :func:`bare_spec`.
        starts: how many in a row, none more than a day after the one before.
        at: when the last one was.
        failed_at: when a template was last tried to be made, or to be used, in vain.
    """

    id: str
    image_id: str
    kernel_id: str
    spec: VmSpec
    at: datetime
    owner_uid: int = 0
    starts: int = 1
    failed_at: datetime | None = None

    @property
    def name(self) -> str:
        """Nobody asks for it by a name."""
        return self.id

    def again(self, now: datetime) -> Wish:
        """The same after one more start."""
        return replace(self, at=now, starts=self.starts + 1 if now - self.at <= _COUNTED else 1)

    def is_due(self, now: datetime, after: int) -> bool:
        """A template is worth making: there were ``after`` starts lately, and nothing speaks against it."""
        has_failed = self.failed_at is not None and now - self.failed_at < _PAUSE
        return self.starts >= after and now - self.at <= _COUNTED and not has_failed


def obstacle(spec: VmSpec, vmm: str) -> str:
    """Why a VM of ``spec`` boots by itself, in words; empty if a template could stand for that."""
    if spec.cold:
        return "--cold asks for it"
    if spec.home:
        return "it has a home disk, which no two VMs can have"
    return "machines of Firecracker are not made templates" if vmm == FIRECRACKER else ""


def bare_spec(spec: VmSpec) -> VmSpec:
    """What is booted for a template that stands for ``spec``: nothing of it that a user may have meant for one VM."""
    return VmSpec(
        image=spec.image,
        kernel=spec.kernel,
        cpus=spec.cpus,
        memory_mib=spec.memory_mib,
        disk_mib=spec.disk_mib,
        init=spec.init,
        network=spec.network,
        egress=spec.egress,
        storage=spec.storage,
        vmm=spec.vmm,
        machine=spec.machine,
        accelerator=spec.accelerator,
        cold=True,
    )


def key_of(parts: Mapping[str, object]) -> str:
    """One key for all that a boot depends on; ``parts`` are plain values."""
    text = json.dumps({"form": FORM, **parts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def is_untouched(vm: Vm) -> bool:
    """Nobody has ever tried to start it, so that what is on its disk is its image's alone."""
    is_new = vm.started_at is None and vm.stopped_at is None and not vm.reason
    return vm.state is VmState.STOPPED and is_new and not vm.forked_from


def is_half_begun(vm: Vm) -> bool:
    """It was to go on from a template, and never did: its disk may be that of the template, or missing."""
    return bool(vm.from_template) and vm.started_at is None
