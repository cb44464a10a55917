"""A VM that was suspended: its machine is in ``vms/ID/suspended``, and its disk is where it always is.

The record beside that machine is what counts. It is there from when all of it is on the disk, and it is gone before the
guest does anything again: from then on the disk is ahead of the memory, and the two must never meet. So whoever finds
it has a VM that is suspended, whatever else of it is still there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from banger.core.identity import RenewalEvent
from banger.core.models import Snapshot
from banger.core.origin import Origin

#: Who had a VM suspended: somebody, banger because nobody used it, or the host that goes down, after whose boot it is
#: brought back.
USER, IDLE, SHUTDOWN = "user", "idle", "shutdown"


@dataclass(frozen=True, slots=True)
class Suspension:
    """The record.

    Attributes:
        snapshot: the machine; it is in no list of snapshots.
        by: :data:`USER`, :data:`IDLE` or :data:`SHUTDOWN`.
        started_at: when the VM had been started; after any later start, this is out of date.
    """

    snapshot: Snapshot
    by: str = USER
    started_at: datetime | None = None

    def origin(self, directory: Path) -> Origin:
        """What the VM goes on from."""
        return Origin(self.snapshot, directory, RenewalEvent.WAKE)
