"""Requests about VMs."""

from __future__ import annotations

from dataclasses import dataclass, field

from banger.core.wire.facts import FACTS
from banger.core.wire.sizes import DISK_MIB
from banger.core.wire.vm_spec import VmSpec


@dataclass(frozen=True, slots=True)
class CreateVmBody:
    """``POST /v1/vms``. An empty ``name`` is made up."""

    spec: VmSpec
    name: str = ""
    start: bool = False


@dataclass(frozen=True, slots=True)
class GrowBody:
    """``POST /v1/vms/QUERY/grow``: the disk's new size."""

    disk_mib: int = field(metadata={FACTS: DISK_MIB})
