"""Which snapshots go by a rule: checkpoints, of which few are kept, and those that somebody prunes. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from banger.core.models import Snapshot

_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class PruneRule:
    """What is pruned; without any limit, checkpoints of VMs that are gone: nobody can be rewound to them.

    Attributes:
        keep: the newest ones that stay, of each VM.
        older_than_s: how old one has to be, in seconds.
        vm_id: of this VM alone.
    """

    keep: int | None = None
    older_than_s: float | None = None
    vm_id: str = ""


#: Checkpoints of VMs that are gone.
ABANDONED = PruneRule()


def checkpoint_name(vm_name: str, taken: Collection[str]) -> str:
    """``VM-before-N``, with a number above those of all that are there."""
    number = 1 + max((_number(vm_name, name) for name in taken), default=0)
    return _named(vm_name, number)


def surplus_checkpoints(snapshots: Sequence[Snapshot], newest: Snapshot, keep: int, most_bytes: int) -> list[Snapshot]:
    """What goes, the oldest first, now that a VM has this checkpoint: older ones, that are too many or take too much.

    Never one that is newer still: who took it does the same, and nobody waits for each other.
    """
    own = [one for one in snapshots if one.is_checkpoint and one.vm_id == newest.vm_id and _age(one) < _age(newest)]
    kept, kept_bytes = 1, newest.memory_bytes + newest.disk_bytes
    for one in sorted(own, key=_age, reverse=True):
        kept_bytes += one.memory_bytes + one.disk_bytes
        if kept >= keep or kept_bytes > most_bytes:
            break
        kept += 1
    return sorted(own, key=_age)[: len(own) - kept + 1]


def prunable(snapshots: Sequence[Snapshot], rule: PruneRule, now: datetime, vm_ids: Collection[str]) -> list[Snapshot]:
    """Those that ``rule`` is about, the oldest first; ``vm_ids`` are the VMs that there are."""
    found = sorted((one for one in snapshots if rule.vm_id in ("", one.vm_id)), key=_age)
    if rule.keep is None and rule.older_than_s is None:
        return [one for one in found if one.is_checkpoint and one.vm_id not in vm_ids]
    newest: set[str] = set()
    if rule.keep:
        of_vms: dict[str, list[str]] = {}
        for one in found:
            of_vms.setdefault(one.vm_id, []).append(one.id)
        newest = {one for own in of_vms.values() for one in own[-rule.keep :]}
    limit_s = rule.older_than_s or 0.0
    return [one for one in found if one.id not in newest and (now - one.created_at).total_seconds() >= limit_s]


def _age(snapshot: Snapshot) -> tuple[datetime, str]:
    return snapshot.created_at, snapshot.id


def _named(vm_name: str, number: int) -> str:
    ending = f"-before-{number}"
    return vm_name[: _LONGEST_NAME - len(ending)].rstrip("-") + ending


def _number(vm_name: str, name: str) -> int:
    """The number of a checkpoint's name; 0 for what is none of this VM's."""
    last = name.rpartition("-")[2]
    if not (last.isascii() and last.isdecimal() and len(last) <= len("999999999")):
        return 0
    return int(last) if name == _named(vm_name, int(last)) else 0
