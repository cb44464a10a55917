from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import GIB, MIB
from banger.storage.contents import merge_changes
from banger.storage.snapshot_format import (
    CHUNK_BYTES,
    SnapshotState,
    changes_bytes,
    origin_table,
    parse_status,
    snapshot_table,
)
from tests.support.storage import operation

CHUNK = 4096


def test_origin_is_the_image_with_zeros_after_it() -> None:
    assert origin_table(2 * MIB, 5 * MIB, "/dev/loop3") == "0 4096 linear /dev/loop3 0\n4096 6144 zero\n"


def test_origin_of_the_images_own_size_has_no_zeros() -> None:
    assert origin_table(2 * MIB, 2 * MIB, "7:0") == "0 4096 linear 7:0 0\n"


def test_image_that_is_no_whole_number_of_sectors_lends_only_whole_ones() -> None:
    assert origin_table(2 * MIB + 511, 3 * MIB, "7:0").startswith("0 4096 linear")


def test_snapshot_is_persistent_and_survives_an_overflow() -> None:
    assert snapshot_table(GIB, "/dev/dm-0", "/dev/loop1") == "0 2097152 snapshot /dev/dm-0 /dev/loop1 PO 32\n"


@pytest.mark.parametrize(
    ("line", "state", "used", "total"),
    [
        ("0 2097152 snapshot 16/204800 16", SnapshotState.VALID, 16, 204800),
        ("0 2097152 snapshot 16/204800 16\n", SnapshotState.VALID, 16, 204800),
        ("0 2097152 snapshot Overflow", SnapshotState.OVERFLOW, 0, 0),
        ("0 2097152 snapshot Invalid", SnapshotState.INVALID, 0, 0),
        ("0 2097152 snapshot Merge failed", SnapshotState.UNKNOWN, 0, 0),
        ("0 2097152 linear", SnapshotState.UNKNOWN, 0, 0),
        ("", SnapshotState.UNKNOWN, 0, 0),
    ],
)
def test_status_line_is_read(line: str, state: SnapshotState, used: int, total: int) -> None:
    found = parse_status(line)
    assert (found.state, found.used_sectors, found.total_sectors) == (state, used, total)


@given(st.integers(1, 64 * 1024))
def test_changes_to_a_whole_disk_always_fit(size_mib: int) -> None:
    """Every chunk changed, the chunk of exceptions before every area, the header, and one cleared area more."""
    chunks = size_mib * MIB // CHUNK_BYTES
    areas = -(-chunks // (CHUNK_BYTES // 16))
    needed = (1 + areas + chunks + 1) * CHUNK_BYTES
    assert needed <= changes_bytes(size_mib * MIB, 100) < needed + 2 * MIB


def test_room_for_a_part_of_the_changes_is_that_part() -> None:
    assert 1.0 <= changes_bytes(10 * GIB, 25) / (2.5 * GIB) < 1.01


# -- the file with the changes, as the kernel writes it ------------------------------------------------


def changes_file(path: Path, changed: dict[int, bytes], *, valid: int = 1, per_area: int = CHUNK // 16) -> Path:
    """Chunks of 4 KiB: header, then per area its exceptions and its data."""
    chunks: list[bytes] = [struct.pack("<4I", 0x70416E53, valid, 1, CHUNK // 512)]
    items = list(changed.items())
    for start in range(0, len(items) + 1, per_area):
        area = items[start : start + per_area]
        first = len(chunks) + 1
        chunks.append(b"".join(struct.pack("<2Q", old, first + index) for index, (old, _) in enumerate(area)))
        chunks += [data for _, data in area]
    path.write_bytes(b"".join(chunk.ljust(CHUNK, b"\0") for chunk in chunks))
    return path


def merged(tmp_path: Path, changes: Path, size_chunks: int = 2000) -> bytes:
    base, target = tmp_path / "base", tmp_path / "merged"
    base.write_bytes(b"b" * (4 * CHUNK))
    merge_changes(base, changes, size_chunks * CHUNK, target, operation())
    return target.read_bytes()


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 700])
def test_changed_chunks_replace_those_of_the_image(tmp_path: Path, count: int) -> None:
    changed = {old * 2: bytes([old % 255 + 1]) * CHUNK for old in range(count)}
    found = merged(tmp_path, changes_file(tmp_path / "cow", changed))
    for old in range(2000):
        plain = b"b" * CHUNK if old < 4 else bytes(CHUNK)
        assert found[old * CHUNK : (old + 1) * CHUNK] == changed.get(old, plain)


def test_neighbours_in_any_order_come_out_right(tmp_path: Path) -> None:
    order = [5, 6, 7, 3, 2, 1, 8, 9]
    changed = {old: bytes([old]) * CHUNK for old in order}
    found = merged(tmp_path, changes_file(tmp_path / "cow", changed), 16)
    assert all(found[old * CHUNK] == old for old in order)


def test_exceptions_in_another_order_than_their_data_come_out_right(tmp_path: Path) -> None:
    """The kernel writes an exception down when its copy is complete, which need not be in the order of the copies."""
    path = changes_file(tmp_path / "cow", {5: b"\5" * CHUNK, 6: b"\6" * CHUNK, 7: b"\7" * CHUNK})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<6Q", raw, CHUNK, 5, 3, 6, 2, 7, 4)
    path.write_bytes(raw)
    found = merged(tmp_path, path, 16)
    assert [found[old * CHUNK] for old in (5, 6, 7)] == [6, 5, 7]


def test_file_that_was_never_attached_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "cow").write_bytes(bytes(MIB))
    assert merged(tmp_path, tmp_path / "cow", 8) == b"b" * (4 * CHUNK) + bytes(4 * CHUNK)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: changes_file(path, {1: b"x"}, valid=0),
        lambda path: path.write_bytes(b"not a snapshot of anything" * 1000),
        lambda path: changes_file(path, {3000: b"x"}),
        lambda path: path.write_bytes(changes_file(path, {1: b"x"}).read_bytes()[: 2 * CHUNK]),
    ],
    ids=["given up", "something else", "beyond the disk", "cut short"],
)
def test_damaged_changes_are_refused_and_leave_nothing(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    spoil(tmp_path / "cow")
    with pytest.raises(BangerError) as caught:
        merged(tmp_path, tmp_path / "cow")
    assert caught.value.kind is ErrorKind.INVALID
    assert not (tmp_path / "merged").exists()
