"""Facts that the supervisor and its owners report to each other."""

from __future__ import annotations

from dataclasses import dataclass

from banger.actors.messages.commands import Command, OwnerKey
from banger.core.operation import Operation
from banger.core.waiter import Waiter


@dataclass(frozen=True, slots=True)
class Submit:
    """A command and who waits for it."""

    command: Command
    waiter: Waiter


@dataclass(frozen=True, slots=True)
class CommandFinished:
    """An owner is done with one command."""

    key: OwnerKey
    generation: int
    operation_id: str


@dataclass(frozen=True, slots=True)
class OwnerTerminated:
    """An owner's thread ended; ``error`` tells a crash from an orderly stop."""

    key: OwnerKey
    generation: int
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Respawn:
    """The backoff of a crashed owner is over."""

    key: OwnerKey


@dataclass(frozen=True, slots=True)
class BeginShutdown:
    """Refuse what is new and cancel what runs."""


# -- to an owner -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Perform:
    """Do a command as this operation."""

    command: Command
    operation: Operation
