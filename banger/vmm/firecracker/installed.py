"""The releases that banger itself has installed: ``drivers/firecracker/VERSION/`` below the data directory.

Such a directory appears whole, by one rename, and goes as one: there is nothing that it could disagree with, so no row
in the store stands for it. Whoever looks finds it without the daemon.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from banger.core import codec
from banger.core.errors import BangerError
from banger.core.models import VmmRelease
from banger.core.ports import InstalledRelease
from banger.layout import Layout
from banger.vmm.firecracker.releases import order_of, parse_version

#: The name of the driver.
NAME = "firecracker"
#: The programs of a release, and the file that says where they come from.
VMM, JAILER, RECORD = "firecracker", "jailer", "release.json"
PROGRAMS = (VMM, JAILER)


def installed(layout: Layout) -> list[InstalledRelease]:
    """All of them, the newest first; also what is broken."""
    return [_look(path) for path in sorted(_directories(layout), key=lambda path: order_of(path.name), reverse=True)]


def find_installed(layout: Layout, version: str) -> InstalledRelease | None:
    """The one of exactly this version."""
    directory = layout.driver_dir(NAME, version)
    return _look(directory) if parse_version(version) and directory.is_dir() else None


def check(release: InstalledRelease) -> str:
    """What is wrong with it, after reading all of its programs; empty if it is what was installed."""
    if release.broken or release.record is None:
        return release.broken
    for name, expected in release.record.sums.items():
        with (release.directory / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            return f"{name} has the SHA-256 {found}, {expected} was installed"
    return ""


def write_record(record: VmmRelease, directory: Path) -> None:
    """Say in a directory that is being made what it is."""
    (directory / RECORD).write_text(json.dumps(codec.to_plain(record), indent=2) + "\n", encoding="utf-8")


def _directories(layout: Layout) -> Iterator[Path]:
    place = layout.driver_dir(NAME, "")
    if place.is_dir():
        yield from (path for path in place.iterdir() if parse_version(path.name) and path.is_dir())


def _look(directory: Path) -> InstalledRelease:
    version = directory.name
    try:
        text = (directory / RECORD).read_text(encoding="utf-8")
        record = codec.from_plain(VmmRelease, json.loads(text), tolerant=True)
    except (OSError, ValueError, BangerError) as error:
        return InstalledRelease(version, directory, None, f"{RECORD} cannot be read: {error}")
    missing = [name for name in PROGRAMS if not (directory / name).is_file()]
    if missing:
        return InstalledRelease(version, directory, record, f"{', '.join(missing)} missing")
    size_bytes = sum((directory / name).stat().st_size for name in PROGRAMS)
    changed = size_bytes != record.size_bytes or record.version != version
    return InstalledRelease(version, directory, record, "it is not what was installed" if changed else "")
