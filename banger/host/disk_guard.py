"""Deciding when VMs are paused before the host's disk is full, and resumed when there is space again. Pure.

A VM that takes no room is left alone, however little is left: who writes is paused, the fastest first, until what the
others write would not fill the rest for a while. That is safe where a write that finds no room stops the machine and is
tried again later (``VmmDriver.holds_writes``): such a VM loses nothing, even if the disk is full all at once. One that
would lose what it writes, because its driver tells the guest of an I/O error or its snapshot is given up by the host's
kernel, is paused before that, whether or not it writes. Between the thresholds nothing changes, so that no VM is paused
and resumed in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from banger.core.ports import Condition, Fill, Health
from banger.core.units import MIB, format_size

#: What ``Vm.paused_by`` says of a VM that the guard paused, or that found no room; and of one whose disk failed.
PAUSED_BY = "guard"
DISK = "disk"

#: For so many looks what is left must do for those that are not paused; a look is five seconds.
_HORIZON_LOOKS = 12
#: Of the room below which VMs are paused, the part below which those are that would lose what they write.
_FRAGILE_PART = 2


class Move(StrEnum):
    """What is to be done with a VM."""

    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When to act.

    Attributes:
        pause_free_bytes, resume_free_bytes: room on the host's file system.
        pause_fill, resume_fill: parts of 1 of what a snapshot that may overflow has room for.
    """

    pause_free_bytes: int
    resume_free_bytes: int
    pause_fill: float
    resume_fill: float

    @classmethod
    def of(cls, number: Callable[[str], int]) -> Thresholds:
        """As configured (``Config.number``); a VM never goes on earlier than it would be paused again."""
        pause_free, pause_fill = number("storage.pause_free_mib"), number("storage.pause_fill_percent")
        return cls(
            pause_free_bytes=pause_free * MIB,
            resume_free_bytes=max(pause_free, number("storage.resume_free_mib")) * MIB,
            pause_fill=pause_fill / 100,
            resume_fill=min(pause_fill, number("storage.resume_fill_percent")) / 100,
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """A VM that runs, or that the guard has paused. One that somebody else paused is not the guard's business.

    Attributes:
        taken_bytes: room on the host that it took since the last look; 0 if there was none.
        is_fragile: it loses what it writes while the host has no room.
    """

    vm_id: str
    name: str
    fill: Fill
    is_paused: bool = False
    taken_bytes: int = 0
    is_fragile: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one VM, and the sentence that tells its user why."""

    vm_id: str
    move: Move
    reason: str


def decide(free_bytes: int, vms: Sequence[Watched], thresholds: Thresholds) -> list[Decision]:
    """What to do now; empty if all is well.

    Args:
        free_bytes: room on the file system that the disks are on.
        vms: all that the guard may pause or resume.
        thresholds: when to act.
    """
    return [*_resumed(free_bytes, vms, thresholds), *_paused(free_bytes, vms, thresholds)]


def stalled(name: str, condition: Condition) -> tuple[str, str]:
    """``Vm.paused_by`` and ``Vm.reason`` of a VM that stands still because the host does not take what it writes."""
    if condition.health is Health.NO_ROOM:
        advice = "it goes on when there is room: banger system df"
        return PAUSED_BY, f'"{name}" is paused: {condition.words}; {advice}'
    return DISK, f'"{name}" is paused: {condition.words}; nothing is lost until it is stopped'


def _resumed(free_bytes: int, vms: Sequence[Watched], thresholds: Thresholds) -> Iterator[Decision]:
    if free_bytes < thresholds.resume_free_bytes:
        return
    for vm in vms:
        if vm.is_paused and not _own_trouble(vm, thresholds.resume_fill):
            yield Decision(vm.vm_id, Move.RESUME, f'"{vm.name}" goes on: there is room again')


def _paused(free_bytes: int, vms: Sequence[Watched], thresholds: Thresholds) -> Iterator[Decision]:
    running = []
    for vm in vms:
        if vm.is_paused:
            continue
        if reason := _own_trouble(vm, thresholds.pause_fill):
            yield Decision(vm.vm_id, Move.PAUSE, reason)
        else:
            running.append(vm)
    if free_bytes >= thresholds.pause_free_bytes:
        return
    is_critical = free_bytes < thresholds.pause_free_bytes // _FRAGILE_PART
    writers = _fastest(free_bytes, running)
    for vm in running:
        if vm in writers:
            taken = f"it has just taken {format_size(vm.taken_bytes)}"
            yield Decision(vm.vm_id, Move.PAUSE, _no_room(vm, free_bytes, taken))
        elif vm.is_fragile and is_critical:
            yield Decision(vm.vm_id, Move.PAUSE, _no_room(vm, free_bytes, "without any it would lose what it writes"))


def _fastest(free_bytes: int, running: Sequence[Watched]) -> list[Watched]:
    """As few as will do: those who took the most, until the others could go on like that for a while."""
    rate, found = sum(vm.taken_bytes for vm in running), []
    for vm in sorted(running, key=lambda one: one.taken_bytes, reverse=True):
        if rate * _HORIZON_LOOKS <= free_bytes or not vm.taken_bytes:
            break
        found.append(vm)
        rate -= vm.taken_bytes
    return found


def _no_room(vm: Watched, free_bytes: int, why: str) -> str:
    return (
        f'"{vm.name}" is paused: only {format_size(free_bytes)} are free on the host\'s disk, and {why}; '
        "it goes on when there is room: banger system df"
    )


def _own_trouble(vm: Watched, most_fill: float) -> str:
    """Why a VM must not write although the host has room, or empty."""
    fill = vm.fill
    if fill.failure:
        return f'"{vm.name}" is paused: {fill.failure}'
    if fill.can_overflow and fill.total_bytes and fill.used_bytes >= most_fill * fill.total_bytes:
        return (
            f'"{vm.name}" is paused: its snapshot holds {format_size(fill.used_bytes)} of changes '
            f"and has room for {format_size(fill.total_bytes)}; stop it and make its disk larger"
        )
    return ""
