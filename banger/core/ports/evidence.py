"""The port for keeping evidence of a VM that failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from banger.core.evidence import Incident  # which needs this package


class EvidenceKeeper(Protocol):
    """Where evidence is kept."""

    def keep(self, incident: Incident) -> None:
        """Write down all that is known of it. Never raises: a full disk costs the evidence, not the cleanup."""
        ...

    def prune(self, *, every: bool = False, dry_run: bool = False) -> Sequence[tuple[str, int]]:
        """Remove what is too old or too much, or ``every`` record: what it was, and its bytes."""
        ...
