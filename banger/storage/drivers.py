"""The registry of storage drivers, which of them work on this host, and the default for new VMs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import new_id
from banger.core.plan import CleanupStep
from banger.core.ports import Storage
from banger.host.cascade import run_all
from banger.layout import Layout
from banger.storage.device_mapper import DeviceMapper
from banger.storage.full_copy import CopyStorage, ReflinkStorage, why_no_reflink
from banger.storage.loop_devices import LoopDevices
from banger.storage.overlay import OverlayStorage
from banger.storage.snapshot import DmSnapshotStorage
from banger.storage.snapshot_format import changes_bytes, origin_table, snapshot_table

_PROBE_BYTES = 1 << 20
#: In the place of an installation's id in the names of devices that last for a blink.
_PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a driver works here. ``reason`` says why not, ``hint`` what to do about it; both are empty if it does."""

    name: str
    works: bool
    reason: str = ""
    hint: str = ""


def all_drivers(config: Config, installation_id: str) -> Mapping[str, Storage]:
    """Every driver, also those that do not work here: a VM's disk is taken down by what made it."""
    percent = min(100, max(1, config.number("storage.snapshot_percent")))
    drivers: tuple[Storage, ...] = (
        OverlayStorage(),
        ReflinkStorage(),
        DmSnapshotStorage(installation_id, percent),
        CopyStorage(),
    )
    return {driver.name: driver for driver in drivers}


def choose(drivers: Mapping[str, Storage], layout: Layout, config: Config) -> Storage:
    """The driver for new VMs, as ``storage.driver`` says.

    Raises:
        BangerError: ``unavailable`` if that one does not work on this host.
    """
    wanted = config.text("storage.driver")
    name = OverlayStorage.name if wanted == "auto" else wanted
    found = probe(name, layout)
    if not found.works:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'the storage driver "{name}" does not work on this host',
            subject=name,
            cause=found.reason,
            hint=found.hint,
        )
    return drivers[name]


def survey(layout: Layout) -> Iterator[Availability]:
    """Every driver, tried for real in the data directory, which must exist. Leaves nothing behind."""
    for name in (OverlayStorage.name, ReflinkStorage.name, DmSnapshotStorage.name, CopyStorage.name):
        yield probe(name, layout)


def probe(name: str, layout: Layout) -> Availability:
    """Whether one driver works here."""
    reason, hint = "", ""
    if name == ReflinkStorage.name:
        reason, hint = why_no_reflink(layout.data), "keep banger's data on XFS or Btrfs"
    elif name == DmSnapshotStorage.name:
        reason, hint = why_no_snapshot(layout.data), "as root: apt-get install dmsetup; modprobe dm-snapshot loop"
    return Availability(name, not reason, reason, hint if reason else "")


def why_no_snapshot(
    directory: Path, mapper: DeviceMapper | None = None, loops: LoopDevices | None = None, uid: int | None = None
) -> str:
    """Make a snapshot of a megabyte for real, and remove it; the reason if that does not work, else empty."""
    mapper, loops = mapper or DeviceMapper(), loops or LoopDevices()
    if (os.geteuid() if uid is None else uid) != 0:
        return "making block devices takes root"
    mark = f"banger-{_PROBE}-{new_id()}"
    image, changes = directory / f".{mark}-image", directory / f".{mark}-cow"
    made: list[str] = []
    try:
        for path, size in ((image, _PROBE_BYTES), (changes, changes_bytes(_PROBE_BYTES, 100))):
            with path.open("xb") as file:
                file.truncate(size)
        with (
            loops.attached(image, f"{mark}-image", read_only=True) as base,
            loops.attached(changes, f"{mark}-cow", read_only=False) as upper,
        ):
            origin = mapper.create(f"{mark}-base", origin_table(_PROBE_BYTES, _PROBE_BYTES, str(base)), read_only=True)
            made.append(f"{mark}-base")
            table = snapshot_table(_PROBE_BYTES, str(origin), str(upper))
            mapper.create(f"{mark}-root", table, read_only=False)
            made.append(f"{mark}-root")
    except BangerError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        _remove(made, mapper)
        image.unlink(missing_ok=True)
        changes.unlink(missing_ok=True)
    return ""


def _remove(made: list[str], mapper: DeviceMapper) -> None:
    """Last made, first removed; what udev holds for a moment is tried again."""
    run_all([CleanupStep(name, partial(mapper.remove, name)) for name in reversed(made)])
