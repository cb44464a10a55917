"""The leases of an operation that builds something: taken before the first byte, dropped after the row is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from banger.core import clock
from banger.core.errors import BangerError
from banger.core.operation import Operation
from banger.core.progress import OperationEvent
from banger.store.leases import LEASE_S, LeaseTable

#: How often the progress of an operation renews what it holds.
_RENEWED_EVERY = timedelta(seconds=LEASE_S / 6)


@contextmanager
def leased(leases: LeaseTable, operation: Operation) -> Iterator[None]:
    """Hold everything in staging whose name carries the operation's id, and what is added meanwhile.

    Every sign of life of the operation makes the leases last; one that shows none for :data:`LEASE_S` loses them.
    """
    renewed = clock.now()

    def renew(_: OperationEvent) -> None:
        nonlocal renewed
        if clock.now() - renewed >= _RENEWED_EVERY:
            renewed = clock.now()
            leases.renew(operation.id)

    leases.take(operation.id, [staging_key(f"x-{operation.id}")])
    forget = operation.subscribe(renew)
    try:
        yield
    finally:
        forget()
        with suppress(BangerError):  # a full disk: what was built counts, and the lease lapses by itself
            leases.drop(operation.id)


def staging_key(name: str) -> str:
    """The key of an entry of the staging directory, called ``WHAT-OPERATION`` or ``WHAT-OPERATION-ANYTHING``."""
    return f"staging:{name.split('-')[1] if '-' in name else name}"
