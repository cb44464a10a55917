"""Requests about the installation as a whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PruneBody:
    """``POST /v1/system/prune``."""

    nouns: tuple[str, ...] = ("image", "kernel", "evidence")
    unused: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RefreshCatalogBody:
    """``POST /v1/catalog/refresh``: ``https://…`` or ``oci:REFERENCE``, pinned by ``digest`` or by the reference."""

    source: str
    digest: str = ""
    name: str = ""
