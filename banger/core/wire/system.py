"""Requests about the installation as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from banger.core.units import LONGEST_S
from banger.core.wire.facts import Facts, described

MOST_KEPT = 1_000_000


@dataclass(frozen=True, slots=True)
class PruneBody:
    """``POST /v1/system/prune``.

    The noun ``snapshot`` means checkpoints whose VM is gone; with ``keep`` or ``older_than_s``, all snapshots that are
    older than that, but for the newest ``keep`` of each VM; with ``unused``, all of them. ``vm``: of that one alone.
    """

    nouns: tuple[str, ...] = ("image", "kernel", "evidence", "template")
    unused: bool = False
    dry_run: bool = False
    keep: int | None = described(None, Facts("Snapshots that stay of each VM.", most=MOST_KEPT))
    older_than_s: float | None = described(
        None, Facts("Only snapshots that are older.", detail="Seconds.", most=LONGEST_S)
    )
    vm: str = ""


@dataclass(frozen=True, slots=True)
class RefreshCatalogBody:
    """``POST /v1/catalog/refresh``: ``https://…`` or ``oci:REFERENCE``, pinned by ``digest`` or by the reference."""

    source: str
    digest: str = ""
    name: str = ""
