"""The dependencies of the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import HTTPConnection

from banger.actors.inventory import OwnedObject
from banger.actors.services import Vmms
from banger.catalog import Catalog
from banger.config import Config
from banger.core.models import GuestAccess, Vm
from banger.dns.service import DnsService
from banger.host.evidence.store import EvidenceStore
from banger.host.ledger import Ledger
from banger.layout import Layout
from banger.resolver import StoreResolver
from banger.sessions.all import Sessions
from banger.storage.home_disk import HomeDisk
from banger.store import Store
from banger.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class ArtifactContext:
    """For the routes of images and kernels: what the names mean that are typed, and what can be had."""

    resolver: StoreResolver
    catalog: Catalog


@dataclass(frozen=True, slots=True)
class VmContext:
    """For the routes of VMs.

    Attributes:
        sessions: commands and files.
        access: how the guest of a running VM is reached over ssh.
        evidence: of those that went wrong.
        ledger: what they hold on the host.
        homes: disks that outlive them.
        error_counters: what the VMM of one has counted, see :class:`banger.core.ports.VmmDriver`.
    """

    sessions: Sessions
    access: Callable[[Vm], GuestAccess]
    evidence: EvidenceStore
    ledger: Ledger
    homes: HomeDisk
    error_counters: Callable[[Vm], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class SystemContext:
    """For the routes of the daemon itself.

    Attributes:
        inventory: lists what is on the host.
        stop: begins an orderly shutdown and returns at once.
    """

    vmms: Vmms
    dns: DnsService | None
    inventory: Callable[[], Sequence[OwnedObject]]
    started_at: datetime
    stop: Callable[[], object]


@dataclass(frozen=True, slots=True)
class ApiContext:
    """What all routes work with, and what those of one kind do. Wired by the daemon."""

    layout: Layout
    config: Config
    store: Store
    supervisor: Supervisor
    artifacts: ArtifactContext
    vms: VmContext
    system: SystemContext


def context_of(connection: HTTPConnection) -> ApiContext:
    """The context of the application that serves a request."""
    context = connection.app.state.context
    assert isinstance(context, ApiContext)
    return context
