"""The port for engines, hardware or emulation, that machines run on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from banger.core.boot_pace import BootPace
from banger.core.errors import BangerError


@dataclass(frozen=True, slots=True)
class Engine:
    """What one machine is to run on.

    Attributes:
        accelerator: its name; ``kvm`` is hardware.
        reason: why, in one line for people.
        forced: somebody asked for just this one: there is no falling back.
        pace: how fast a guest must come up on it; ``None`` if its kernel was seen to come up before, or is emulated.
        is_emulated: no hardware, and some twenty times slower.
    """

    accelerator: str
    reason: str
    forced: bool = False
    pace: BootPace | None = None
    is_emulated: bool = False


class EngineError(BangerError):
    """A machine did not start, and what it should run on is to blame: KVM is busy, broken or not ours."""


class Engines(Protocol):
    """Chooses engines, and remembers which kernels came up on hardware since the host booted."""

    def choose(self, wish: str, kernel_digest: str) -> Engine:
        """What a machine with that kernel runs on. ``wish`` is an accelerator; empty leaves it to the settings."""
        ...

    def instead_of(self, engine: Engine, reason: str) -> Engine | None:
        """What the same start goes on with where ``engine`` is to blame; ``None`` if there is nothing else."""
        ...

    def keep(self, kernel_digest: str, reason: str = "") -> None:
        """Remember that a kernel came up on hardware; with a ``reason``, that it did not although it did emulated."""
        ...

    def forget(self, kernel_digest: str) -> None:
        """Hardware broke down with this kernel: have the next start prove both of them anew."""
        ...
