"""Requests about VMM drivers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InstallDriverBody:
    """``POST /v1/drivers/QUERY/install``.

    ``source`` is an absolute path on this host or a URL; ``sums`` are SHA-256 that the caller vouches for, of the
    archive or of each program.
    """

    version: str = ""
    source: str = ""
    sums: tuple[str, ...] = ()
