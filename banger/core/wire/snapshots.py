"""Requests about snapshots, and about VMs that are made from them."""

from __future__ import annotations

from dataclasses import dataclass

from banger.core.wire.facts import Facts, described
from banger.core.wire.port_forward import PortForward

#: Of one request.
MOST_FORKS = 100


@dataclass(frozen=True, slots=True)
class CreateSnapshotBody:
    """``POST /v1/vms/QUERY/snapshots``. An empty ``name`` is made up; ``stop`` ends the VM once it is taken."""

    name: str = ""
    stop: bool = False


@dataclass(frozen=True, slots=True)
class RestoreBody:
    """``POST /v1/snapshots/QUERY/restore``. An empty ``name`` is that of the snapshot's VM, or made up from it."""

    name: str = ""
    ports: tuple[PortForward, ...] = ()


@dataclass(frozen=True, slots=True)
class RewindBody:
    """``POST /v1/vms/QUERY/rewind``. Without ``snapshot`` it is the newest one of that VM."""

    snapshot: str = ""


@dataclass(frozen=True, slots=True)
class ExportSnapshotBody:
    """``POST /v1/snapshots/QUERY/export``: ``path`` is absolute, and new."""

    path: str


@dataclass(frozen=True, slots=True)
class ImportSnapshotBody:
    """``POST /v1/snapshots/import``: ``path`` is absolute. Without ``name`` it has the one that it had."""

    path: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class ForkBody:
    """``POST /v1/vms/QUERY/fork`` and ``/v1/snapshots/QUERY/fork``.

    ``name`` is a pattern with ``{n}`` for the number of the fork, or a name for the only one; empty: made up.
    """

    count: int = described(1, Facts("How many VMs.", most=MOST_FORKS, most_words=str(MOST_FORKS)))
    name: str = ""
    ports: tuple[PortForward, ...] = ()
