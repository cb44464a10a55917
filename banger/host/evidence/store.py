"""The store of evidence: one private file per record, ``evidence/TIME-VM-ID.json``, limited in number and size."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loguru import logger

from banger.core import clock, codec, lookup
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError
from banger.core.evidence import Evidence, Incident
from banger.host.evidence.gathering import gather
from banger.layout import Layout

#: The last so many are kept, for so long, in so many bytes; whichever is less.
KEPT = 20
KEPT_FOR = timedelta(days=7)
KEPT_BYTES = 8 << 20
#: Of these so many of one VM: one that is started again and again must not push out what is known of others.
KEPT_OF_ONE = 5
_STAMP = "%Y%m%dT%H%M%S.%f"
_UNFINISHED = ".new"


class EvidenceStore:
    """Implements :class:`banger.core.ports.EvidenceKeeper`, and reads what it kept. Thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directory = layout.evidence
        self._lock = threading.Lock()

    def keep(self, incident: Incident) -> None:
        """Write a record, and remove those that are too many by then. Never raises."""
        try:
            evidence = gather(self._layout, incident)
            with self._lock:
                self._write(evidence)
            self.prune()
        except Exception as error:  # noqa: BLE001  # the boundary: what follows is the cleanup, which must run
            logger.warning("{}: no evidence of it is kept: {}", incident.vm.name, error)

    def all(self) -> list[Evidence]:
        """Every record that can be read, the newest first."""
        return [evidence for path in self._files() if (evidence := _read(path)) is not None]

    def of(self, query: str) -> list[Evidence]:
        """The records that a VM's name or id, a record's id, or a unique prefix of one means, the newest first.

        Raises:
            BangerError: ``usage``, ``not_found`` or ``ambiguous``, as for every name.
        """
        records = self.all()
        handles: list[Callable[[Evidence], str]] = [lambda one: one.id, lambda one: one.vm.name, lambda one: one.vm.id]
        for handle in handles:
            if exact := [one for one in records if handle(one) == query]:
                return exact
        found = [
            [one for one in records if handle(one) == value]
            for handle in handles
            for value in dict.fromkeys(handle(one) for one in records)
            if query and value.startswith(query)
        ]
        if len(found) == 1:
            return found[0]
        return [lookup.find(query, [matches[0] for matches in found], "vm")]  # says what is wrong

    def prune(self, *, every: bool = False, dry_run: bool = False) -> Sequence[tuple[str, int]]:
        """Remove what is too old or too much, or ``every`` record, and what a crash left half written."""
        with self._lock:
            doomed = list(self._surplus(every=every))
            for path, _ in doomed if not dry_run else ():
                path.unlink(missing_ok=True)
        return [(f"evidence {path.stem.rpartition('-')[2]}", size) for path, size in doomed]

    def _surplus(self, *, every: bool) -> Iterator[tuple[Path, int]]:
        total, rank, oldest = 0, 0, clock.now() - KEPT_FOR
        of_one: Counter[str] = Counter()
        for path in self._files():
            size, vm_id = _size(path), path.name.split("-")[1:2]
            of_one.update(vm_id)
            too_many = rank >= KEPT or any(of_one[one] > KEPT_OF_ONE for one in vm_id)
            if every or too_many or total + size > KEPT_BYTES or _time_of(path) < oldest:
                yield path, size
            else:
                total, rank = total + size, rank + 1
        for path in self._directory.glob(f"*{_UNFINISHED}"):  # whoever writes one holds the lock
            yield path, _size(path)

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.json"), reverse=True)

    def _write(self, evidence: Evidence) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        final = self._directory / f"{evidence.at.astimezone(UTC).strftime(_STAMP)}-{evidence.vm.id}-{evidence.id}.json"
        fresh = final.with_suffix(_UNFINISHED)
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
                json.dump(codec.to_plain(evidence), file, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            crashpoint("evidence.keep:written")
            fresh.replace(final)
        except BaseException:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise


def _read(path: Path) -> Evidence | None:
    """A record; None for one that is damaged or gone."""
    try:
        return codec.from_plain(Evidence, json.loads(path.read_bytes()), tolerant=True)
    except (OSError, ValueError, BangerError):
        return None


def _time_of(path: Path) -> datetime:
    """When it was written, as its name tells; a file that somebody else put there is as old as can be."""
    try:
        return datetime.strptime(path.name.partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _size(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
