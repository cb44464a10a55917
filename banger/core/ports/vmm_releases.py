"""The port for releases of VMMs that banger installs by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.core.models import VmmRelease
from banger.core.operation import Operation


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """What an install was asked for.

    Attributes:
        version: exactly this one; empty: what ``source`` has, or else the newest that banger knows.
        source: an absolute path or a URL; empty: where the VMM's project publishes it.
        sums: SHA-256 in hexadecimal digits that the caller vouches for: of the archive, or of each program.
    """

    version: str = ""
    source: str = ""
    sums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InstalledRelease:
    """A directory that is one. ``record`` is None, and ``broken`` says why, if it is not as it was installed."""

    version: str
    directory: Path
    record: VmmRelease | None
    broken: str = ""


class VmmReleases(Protocol):
    """The releases of one VMM: those that are here, and how others come here.

    Attributes:
        name: of the VMM's driver.
    """

    name: str

    def installed(self) -> Sequence[InstalledRelease]:
        """All that are here, the newest first."""
        ...

    def directory(self, version: str) -> Path:
        """Where one is, or would be."""
        ...

    def check(self, release: InstalledRelease) -> str:
        """What is wrong with it, after reading all of it; empty if it is what was installed."""
        ...

    def resolve(self, request: ReleaseRequest) -> str:
        """The version that a request means, or empty if only its files tell.

        Raises:
            BangerError: ``usage`` for one that no release can have; ``unavailable`` if there is none for this host.
        """
        ...

    def build(self, request: ReleaseRequest, staging: Path, operation: Operation) -> VmmRelease:
        """Fill ``staging`` with the programs and a record of them.

        Raises:
            BangerError: ``denied`` for what nobody vouches for, ``invalid`` for what it should not be, ``not_found``,
                ``unavailable`` or ``exhausted`` as for any download.
        """
        ...
