"""What a VM can begin from besides an image: another VM as it was at one instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from banger.core.identity import RenewalEvent
from banger.core.models import Snapshot
from banger.core.ports import SavedMachine


@dataclass(frozen=True, slots=True)
class Origin:
    """A snapshot, and the directory that holds it. It is only read, and nobody needs it once the VM is made.

    Attributes:
        event: how a VM is started from it; a fork's snapshot was taken for this alone, and is no object of its own.
        template: the id of the template that it is of; empty if it is of none.
    """

    snapshot: Snapshot
    directory: Path
    event: RenewalEvent = RenewalEvent.RESTORE
    template: str = ""

    @property
    def disk(self) -> Path:
        """The generation of its disk."""
        return disk_in(self.directory)

    @property
    def machine(self) -> SavedMachine | None:
        """Its machine; None if it was stopped."""
        saved = self.snapshot
        if not saved.memory_mib:
            return None
        return SavedMachine(
            directory=machine_in(self.directory),
            vmm=saved.vmm,
            vmm_version=saved.vmm_version,
            cpu=saved.cpu,
            accelerator=saved.accelerator,
            memory_mib=saved.memory_mib,
            details=saved.details,
        )


def disk_in(directory: Path) -> Path:
    """Where a snapshot's directory has its disk: a directory of the storage driver's."""
    return directory / "disk"


def machine_in(directory: Path) -> Path:
    """Where it has its machine: a directory of the VMM driver's."""
    return directory / "machine"
