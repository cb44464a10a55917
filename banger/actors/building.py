"""Building something in staging on behalf of an operation: leased, and with a full disk told for what it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banger.actors.leases import leased
from banger.actors.orphans import occupied
from banger.actors.services import Services
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.host import publish

#: What the small files beside an artefact and its directory take.
_SMALL_BYTES = 64 << 10

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def building(services: Services, what: str, operation: Operation) -> Iterator[Path]:
    """A staging directory that nothing collects, nor what else the operation leases, until the block is over."""
    layout = services.layout
    with leased(services.store.leases, operation):
        crashpoint("artifact.build:leased")
        try:
            with publish.staging_dir(layout, f"{what}-{operation.id}-") as staged, _room_told(staged):
                yield staged
        except OSError as error:  # not even for a directory
            if error.errno not in _FULL:
                raise
            raise _no_room(layout.staging, 0) from error


@contextmanager
def _room_told(staged: Path) -> Iterator[None]:
    """Say what a full disk means, while what was staged can still be counted."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _no_room(staged.parent, occupied(staged)) from error


def _no_room(place: Path, taken_bytes: int) -> BangerError:
    """The error for a full disk."""
    return BangerError(
        ErrorKind.EXHAUSTED,
        f'not enough room in "{place}"',
        subject=str(place),
        cause=f"more than {taken_bytes + _SMALL_BYTES} bytes are needed",
        hint="banger system df",
    )
