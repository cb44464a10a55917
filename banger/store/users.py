"""Who uses an image or a kernel: what refers to it, and keeps it from being deleted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Users:
    """Names, sorted. True if there are any."""

    vms: tuple[str, ...]
    snapshots: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.vms or self.snapshots)

    @property
    def words(self) -> str:
        """``VM a, b and snapshot c``."""
        kinds = (("VM", self.vms), ("snapshot", self.snapshots))
        return " and ".join(f"{kind} {', '.join(names)}" for kind, names in kinds if names)

    @property
    def deleting(self) -> str:
        """The commands that delete them all."""
        kinds = (("vm", self.vms), ("snapshot", self.snapshots))
        return "; ".join(f"banger {noun} delete {' '.join(names)}" for noun, names in kinds if names)
