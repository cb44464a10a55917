"""The port for snapshots as files, which travel from one host to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from banger.core.models import Snapshot
from banger.core.operation import Operation


@dataclass(frozen=True, slots=True)
class Basis:
    """An image or a kernel that a snapshot needs and does not hold: what it was called, and its digest."""

    name: str
    source: str
    digest: str


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One file of a snapshot: its path in the snapshot's directory, its size, and its content (a SHA-256)."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """What an archive says of its snapshot.

    Attributes:
        snapshot: as it was where it was exported; its image and its kernel have other ids elsewhere.
        image, kernel: what it needs.
        sums: of the files of these two that its machine has read from, by what they are: they have to be the very same.
        files: what the archive holds.
    """

    snapshot: Snapshot
    image: Basis
    kernel: Basis
    sums: Mapping[str, str] = field(default_factory=dict)
    files: tuple[ArchivedFile, ...] = ()


class SnapshotArchives(Protocol):
    """Writes and reads them. What is read is taken for hostile."""

    def sums(self, files: Mapping[str, Path], operation: Operation) -> Mapping[str, str]:
        """The content of each of these files, a SHA-256; holes do not count."""
        ...

    def export(self, record: SnapshotRecord, directory: Path, target: Path, operation: Operation) -> None:
        """Write the files in ``directory`` to one new file, mode 0600, that appears when it is complete.

        Raises:
            BangerError: ``already_exists``, ``not_found``, ``denied``, ``exhausted``, ``cancelled``.
        """
        ...

    def read(self, path: Path) -> SnapshotRecord:
        """What an archive says. Raises ``not_found``, ``denied``, or ``invalid`` for what is none."""
        ...

    def unpack(self, path: Path, into: Path, operation: Operation) -> None:
        """Write its files into the directory ``into``, each verified; they are private, and not synced.

        Raises:
            BangerError: as :meth:`read`; ``exhausted``; ``cancelled``. ``into`` is to be thrown away then.
        """
        ...
