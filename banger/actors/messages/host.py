"""Commands to the owner of the installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from banger.actors.messages.commands import Command, OwnerKey, OwnerKind
from banger.core.snapshot_rules import ABANDONED, PruneRule


@dataclass(frozen=True, slots=True)
class Prune(Command):
    """Remove content that nothing needs; answers a ``PruneReport``.

    Images or kernels (``nouns``) without a name that no VM uses; with ``unused`` also named ones that no VM uses;
    and registry blobs that no image was made from lately. Snapshots only if they are among the nouns, by their rule.
    """

    verb: ClassVar[str] = "system.prune"
    makes_room: ClassVar[bool] = True
    nouns: tuple[str, ...] = ("image", "kernel")
    unused: bool = False
    dry_run: bool = False
    snapshots: PruneRule = ABANDONED

    @property
    def key(self) -> OwnerKey:
        """There is one host."""
        return OwnerKey(OwnerKind.HOST, "host")


@dataclass(frozen=True, slots=True)
class ReconcileHost(Command):
    """Reconcile every VM and collect what belongs to nobody; answers a ``ReconcileReport``.

    ``at_start``: nothing is being built, so staging is swept too. ``dry_run``: only tell what would be done.
    ``fix``: take down what is nobody's however young it is.
    """

    verb: ClassVar[str] = "system.reconcile"
    background: ClassVar[bool] = True
    at_start: bool = False
    dry_run: bool = False
    fix: bool = False

    @property
    def key(self) -> OwnerKey:
        """There is one host."""
        return OwnerKey(OwnerKind.HOST, "host")


# -- to the supervisor -----------------------------------------------------------------------------------
