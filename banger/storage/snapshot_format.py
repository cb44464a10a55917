"""device-mapper's formats for snapshots: tables, sizes, status lines, the file with the changes. Pure.

Sources: *Device-mapper snapshot support* in the kernel's documentation, and ``drivers/md/dm-snap-persistent.c``.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import Enum

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB

SECTOR_BYTES = 512
#: What is copied when a block is written to for the first time: 16 KiB. Of every changed chunk the kernel keeps 32
#: bytes in memory: 20 MiB for a rewritten disk of 10 GiB, where chunks of 4 KiB would take 80; with chunks much larger
#: than the 4 KiB that ext4 writes, the first write of each copies more than it is worth.
CHUNK_SECTORS = 32
CHUNK_BYTES = CHUNK_SECTORS * SECTOR_BYTES
_EXCEPTION = struct.Struct("<2Q")
_HEADER = struct.Struct("<4I")
_MAGIC = 0x70416E53
_STATUS = re.compile(r"^\d+ \d+ snapshot (?:(?P<used>\d+)/(?P<total>\d+) (?P<metadata>\d+)|(?P<words>.+))$")


class SnapshotState(Enum):
    """Whether a snapshot can be used."""

    VALID = "valid"
    OVERFLOW = "there was no room for what the guest wrote"
    INVALID = "its changes are lost: they could not be written to the host's disk"
    UNKNOWN = "the kernel does not tell"


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """What ``dmsetup status`` says; sectors have 512 bytes and are 0 unless the state is ``VALID``.

    Attributes:
        used_sectors, total_sectors: of the file with the changes.
        metadata_sectors: what of the used ones tells where the changes are.
    """

    state: SnapshotState
    used_sectors: int = 0
    total_sectors: int = 0
    metadata_sectors: int = 0


def parse_status(line: str) -> SnapshotStatus:
    """Read one status line of a snapshot; anything else is ``UNKNOWN``."""
    match = _STATUS.match(line.strip())
    if match is None:
        return SnapshotStatus(SnapshotState.UNKNOWN)
    if match["words"]:
        states = {"Overflow": SnapshotState.OVERFLOW, "Invalid": SnapshotState.INVALID}
        return SnapshotStatus(states.get(match["words"], SnapshotState.UNKNOWN))
    return SnapshotStatus(SnapshotState.VALID, int(match["used"]), int(match["total"]), int(match["metadata"]))


def origin_table(image_bytes: int, size_bytes: int, image_device: str) -> str:
    """The image, and zeros after it: an image can't grow, but what a snapshot is taken of can be larger."""
    image, size = image_bytes // SECTOR_BYTES, size_bytes // SECTOR_BYTES
    lines = [f"0 {min(image, size)} linear {image_device} 0"]
    if size > image:
        lines.append(f"{image} {size - image} zero")
    return "\n".join(lines) + "\n"


def snapshot_table(size_bytes: int, origin_device: str, changes_device: str) -> str:
    """A persistent snapshot; with the ``O`` of ``PO`` what overflows keeps what it holds, and says "Overflow"."""
    return f"0 {size_bytes // SECTOR_BYTES} snapshot {origin_device} {changes_device} PO {CHUNK_SECTORS}\n"


def changes_bytes(size_bytes: int, percent: int) -> int:
    """Size of a file that holds the changes to ``percent`` of a disk, and with 100 to all of it for sure.

    The file is a header chunk, then areas: a chunk of exceptions, and as many chunks of data. When an area is full the
    kernel clears the exceptions of the next one, so that there is always one more.
    """
    per_area = CHUNK_BYTES // _EXCEPTION.size
    data = -(-size_bytes * percent // (100 * CHUNK_BYTES))
    areas = -(-data // per_area) + 1
    return -(-(1 + areas + data) * CHUNK_BYTES // MIB) * MIB


def read_header(raw: bytes) -> int:
    """The chunk size in bytes of a file with changes; 0 if nothing was ever written to it.

    Raises:
        BangerError: ``invalid`` if it is no such file, or the kernel gave up on it.
    """
    magic, valid, version, chunk_sectors = _HEADER.unpack_from(raw)
    if not magic:
        return 0
    if magic != _MAGIC or version != 1 or not 0 < chunk_sectors <= 1 << 16 or chunk_sectors & (chunk_sectors - 1):
        raise BangerError(ErrorKind.INVALID, "this is not a snapshot's change file")
    if not valid:
        raise BangerError(ErrorKind.INVALID, "the snapshot is invalid", cause=SnapshotState.INVALID.value)
    return int(chunk_sectors) * SECTOR_BYTES


def area_start(area: int, chunk_bytes: int) -> int:
    """In which chunk the exceptions of an area are, counted from 0."""
    return 1 + area * (chunk_bytes // _EXCEPTION.size + 1)


def read_exceptions(raw: bytes) -> tuple[list[tuple[int, int]], bool]:
    """The ``(chunk of the disk, chunk of the file)`` of one area, and whether it is full, so that another follows."""
    found: list[tuple[int, int]] = []
    for old, new in _EXCEPTION.iter_unpack(raw):
        if not new:
            return found, False
        found.append((old, new))
    return found, True
