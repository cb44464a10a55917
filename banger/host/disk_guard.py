"""Pausing VMs before the host's disk is full, and letting them go on when there is room again. Pure: it only decides.

A guest whose write does not fit gets an I/O error and remounts its disks read-only, and a snapshot that cannot be
written loses all its changes; a paused guest notices nothing. Between the two thresholds nothing changes, so that no
VM is paused and resumed in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from banger.core.ports import Fill
from banger.core.units import MIB, format_size

#: What ``Vm.paused_by`` says of a VM that the guard paused.
PAUSED_BY = "guard"


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
    """A VM that runs, or that the guard has paused. One that somebody else paused is not the guard's business."""

    vm_id: str
    name: str
    fill: Fill
    is_paused: bool = False


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
    return [decision for vm in vms for decision in _judge(free_bytes, vm, thresholds)]


def _judge(free_bytes: int, vm: Watched, thresholds: Thresholds) -> Iterator[Decision]:
    if vm.is_paused:
        if not _trouble(free_bytes, vm, thresholds.resume_free_bytes, thresholds.resume_fill):
            yield Decision(vm.vm_id, Move.RESUME, f'"{vm.name}" goes on: there is room again')
    elif reason := _trouble(free_bytes, vm, thresholds.pause_free_bytes, thresholds.pause_fill):
        yield Decision(vm.vm_id, Move.PAUSE, reason)


def _trouble(free_bytes: int, vm: Watched, least_free_bytes: int, most_fill: float) -> str:
    """Why a VM must not write, or empty."""
    fill = vm.fill
    if fill.failure:
        return f'"{vm.name}" is paused: {fill.failure}'
    if free_bytes < least_free_bytes:
        return (
            f'"{vm.name}" is paused: only {format_size(free_bytes)} are free on the host\'s disk; '
            f"it goes on when there is room: banger system df"
        )
    if fill.can_overflow and fill.total_bytes and fill.used_bytes >= most_fill * fill.total_bytes:
        return (
            f'"{vm.name}" is paused: its snapshot holds {format_size(fill.used_bytes)} of changes '
            f"and has room for {format_size(fill.total_bytes)}; stop it and make its disk larger"
        )
    return ""
