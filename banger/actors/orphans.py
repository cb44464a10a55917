"""Finding and removing orphans: directories without a row, stale downloads, unused caches."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from banger.actors.leases import staging_key
from banger.core.names import new_id
from banger.host import publish
from banger.layout import Layout
from banger.store import Store
from banger.store.leases import directory_key

#: Blobs and toolboxes that nothing touched for so long are pruned, and when all that is unused goes, for so short.
CACHED_S, CACHED_GRACE_S = 7 * 86400.0, 3600.0
#: A directory without a row may be about to get one; only after this long it is nobody's.
GRACE_S = 600.0


@dataclass(frozen=True, slots=True)
class Stale:
    """One entry of a cache: ``what`` it is for people, and the bytes that removing it frees."""

    what: str
    path: Path
    freed_bytes: int


class Orphans:
    """Looks through one installation. Whatever somebody has leased is left alone, however old it is."""

    def __init__(self, layout: Layout, store: Store) -> None:
        self._layout = layout
        self._store = store

    def sweep(self) -> None:
        """Remove what earlier daemons left in staging and trash; anything that is not leased is theirs."""
        held = self._store.leases.held()
        staged = self._layout.staging.iterdir() if self._layout.staging.is_dir() else ()
        publish.sweep(self._layout, keep=[path for path in staged if staging_key(path.name) in held])

    def directories(self, grace_s: float) -> list[Path]:
        """Directories that no row knows, and what a failed build left in staging."""
        layout, store = self._layout, self._store
        # What is there, then the leases, then the rows: who builds has a lease before the directory and drops it after
        # the row, and a VM has its row before its directory. So what is seen without either is nobody's.
        kept = (layout.data / name for name in ("images", "kernels", "snapshots", "templates", "vms"))
        places = (*kept, layout.run / "vms")
        found = [(path, directory_key(path.name)) for place in places for path in older_than(place, grace_s)]
        if grace_s:  # without grace, at the start, staging was swept already
            found += [(path, staging_key(path.name)) for path in older_than(layout.staging, grace_s)]
        held = store.leases.held()
        tables = (store.images, store.kernels, store.snapshots, store.templates, store.vms)
        known = {one.id for table in tables for one in table.all()}
        return [path for path, key in found if key not in held and path.name not in known]

    def blobs(self, age_s: float, *, parts_only: bool = False) -> Iterator[Stale]:
        """Downloads that nothing touched for ``age_s``: whole ones only save the next pull a transfer."""
        for path in older_than(self._layout.blobs / "sha256", age_s):
            if not parts_only or path.suffix == ".part":
                what = "download" if path.suffix == ".part" else "blob"
                yield Stale(f"{what} {path.name[:12]}", path, _occupied(path))

    def remove_blob(self, stale: Stale) -> bool:
        """Remove one unless it is in use; True if it is gone. Renamed under the store's lock, removed after it."""
        layout = self._layout
        layout.trash.mkdir(mode=0o700, parents=True, exist_ok=True)
        doomed = layout.trash / f"{stale.path.name}.{new_id()}"

        def take_away() -> None:
            with suppress(FileNotFoundError):
                stale.path.rename(doomed)

        gone = self._store.leases.unless_held(f"blob:{stale.path.stem}", take_away)
        doomed.unlink(missing_ok=True)
        return gone

    def toolboxes(self, age_s: float) -> Iterator[Stale]:
        """Toolbox initrds that no start used for ``age_s``: their kernel is gone, or they were made by older programs.

        A start marks what it uses, and reads it at once.
        """
        for path in older_than(self._layout.toolbox, age_s):
            yield Stale(f"toolbox {path.name[:12]}", path, occupied(path) if path.is_dir() else _occupied(path))

    def remove_toolbox(self, stale: Stale) -> bool:
        """Remove one."""
        if stale.path.is_dir():
            shutil.rmtree(stale.path, ignore_errors=True)
        else:
            stale.path.unlink(missing_ok=True)
        return True


def occupied(directory: Path) -> int:
    """Bytes that removing a directory frees: files with another name elsewhere stay."""
    return sum(_occupied(path) for path in directory.rglob("*"))


def older_than(parent: Path, grace_s: float) -> list[Path]:
    """Entries of ``parent`` whose inode last changed (a rename counts) more than ``grace_s`` ago."""
    limit = time.time() - grace_s
    found = []
    for path in parent.iterdir() if parent.exists() else ():
        with suppress(FileNotFoundError):
            if path.lstat().st_ctime <= limit:
                found.append(path)
    return sorted(found)


def _occupied(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:  # it went meanwhile
        return 0
    return status.st_blocks * 512 if status.st_nlink == 1 else 0
