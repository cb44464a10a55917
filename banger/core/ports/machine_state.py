"""The state of a machine, saved: the type that VMM drivers, their callers and the store share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: In the directory of a saved machine: the guest's memory, and all else that the machine was.
MEMORY_FILE, DEVICES_FILE = "memory", "devices"


@dataclass(frozen=True, slots=True)
class SavedMachine:
    """A machine as it was at one instant. Machines that begin with it never change it.

    Attributes:
        directory: holds :data:`MEMORY_FILE`, as long as the guest's memory and sparse, and :data:`DEVICES_FILE`; both
            are secret. It may be renamed: nothing below says where it is.
        vmm: the name of the driver.
        vmm_version: as that driver's ``version()`` told; no other one loads it.
        cpu: what the guest was shown, and the host's own model: a guest cannot lose what it has seen.
        accelerator: as in :class:`~banger.core.ports.machine.VmmConfig`.
        memory_mib: of the guest.
        details: what else its driver has to know.
    """

    directory: Path
    vmm: str
    vmm_version: str
    cpu: str
    accelerator: str
    memory_mib: int
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def memory(self) -> Path:
        """The file with the guest's memory."""
        return self.directory / MEMORY_FILE

    @property
    def devices(self) -> Path:
        """The file with all else."""
        return self.directory / DEVICES_FILE
