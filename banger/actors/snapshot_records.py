"""What a snapshot's own directory says of it: by this a store that is older than the disk takes it in again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from banger.core import codec
from banger.core.errors import BangerError
from banger.core.models import Snapshot
from banger.layout import Layout
from banger.posix.files import sync_path
from banger.store import Store
from banger.store.leases import directory_key

_RECORD = "snapshot.json"


def write_record(directory: Path, snapshot: Snapshot) -> None:
    """Write it down in ``directory``, which whoever publishes it syncs."""
    path = directory / _RECORD
    path.write_text(json.dumps(codec.to_plain(snapshot)), encoding="utf-8")
    path.chmod(0o400)


def remove_record(directory: Path) -> None:
    """Before its row is deleted: nobody takes it in again after that. Already gone is success."""
    if directory.is_dir():
        (directory / _RECORD).unlink(missing_ok=True)
        sync_path(directory)


def lost_snapshots(layout: Layout, store: Store) -> Iterator[Snapshot]:
    """Snapshots that are there whole and have no row, as rows that the store takes: their names free."""
    there = sorted((layout.data / "snapshots").glob(f"*/{_RECORD}"))
    # Then the leases, then the rows: who publishes one holds it from before the rename until the row is there.
    held = store.leases.held()
    known = {one.id for one in store.snapshots.all()}
    for path in there:
        if path.parent.name in known or directory_key(path.parent.name) in held:
            continue
        try:
            found = codec.from_plain(Snapshot, json.loads(path.read_text(encoding="utf-8")), tolerant=True)
        except (OSError, ValueError, BangerError):
            continue
        is_usable = store.images.get(found.image_id) and store.kernels.get(found.kernel_id)
        if found.id == path.parent.name and is_usable:
            is_free = store.snapshots.by_name(found.name) is None
            yield found if is_free else replace(found, name=f"{found.name[:35]}-{found.id[:4]}")
