"""What the routes work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import HTTPConnection

from banger.actors.inventory import OwnedObject
from banger.actors.services import Vmms
from banger.catalog import Catalog
from banger.config import Config
from banger.core.attendance import Attendance
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
class ApiContext:
    """Wired by the daemon. ``stop`` begins an orderly shutdown and returns at once."""

    layout: Layout
    config: Config
    store: Store
    supervisor: Supervisor
    resolver: StoreResolver
    catalog: Catalog
    sessions: Sessions
    access: Callable[[Vm], GuestAccess]
    vmms: Vmms
    ledger: Ledger
    evidence: EvidenceStore
    attendance: Attendance
    dns: DnsService | None
    homes: HomeDisk
    inventory: Callable[[], Sequence[OwnedObject]]
    started_at: datetime
    stop: Callable[[], object]


def context_of(connection: HTTPConnection) -> ApiContext:
    """The context of the application that serves a request."""
    context = connection.app.state.context
    assert isinstance(context, ApiContext)
    return context
