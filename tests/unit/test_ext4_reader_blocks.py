"""Which blocks a file has, by extent tree and by block map: honest ones are understood, hostile ones end quickly."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError
from banger.rootfs.ext4.extents import extent_tree
from banger.rootfs.ext4.reader_device import BlockDevice
from banger.rootfs.ext4.reader_extents import ExtentTree
from banger.rootfs.ext4.reader_file import READ_BYTES, FileReader
from banger.rootfs.ext4.reader_indirect import BlockMap
from banger.rootfs.nodes import Extent
from tests.support.ext4_reader import FakeDevice, superblock

BLOCK = 4096


def device(blocks: dict[int, bytes] | None = None, **fields: int) -> BlockDevice:
    return cast("BlockDevice", FakeDevice(superblock(**fields), blocks or {}))


def node(
    entries: Sequence[bytes], depth: int, *, size: int = BLOCK, magic: int = 0xF30A, count: int | None = None
) -> bytes:
    head = struct.pack("<HHHHI", magic, len(entries) if count is None else count, 340, depth, 0)
    return (head + b"".join(entries)).ljust(size, b"\0")


def leaf(logical: int, physical: int, length: int = 1) -> bytes:
    return struct.pack("<IHHI", logical, length, physical >> 32, physical & 0xFFFFFFFF)


def index(logical: int, block: int) -> bytes:
    return struct.pack("<IIHH", logical, block & 0xFFFFFFFF, block >> 32, 0)


def extents(root: bytes, blocks: dict[int, bytes] | None = None) -> list[Extent]:
    return list(ExtentTree(device(blocks), 12, root).extents())


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100)), max_size=800),
)
def test_extent_tree_of_the_writer_is_read_back(pieces: list[tuple[int, int]]) -> None:
    written, at = [], 0
    for gap, length in pieces:
        written.append(Extent(at + gap, 5000 + 2 * at, length))
        at += gap + length
    blocks: dict[int, bytes] = {}

    def store(block: bytes) -> int:
        blocks[200_000 + len(blocks)] = block
        return 200_000 + len(blocks) - 1

    root, _ = extent_tree(written, 1, store)

    assert extents(root, blocks) == written


def test_extents_that_are_preallocated_read_as_holes() -> None:
    root = node([leaf(0, 100, 5), leaf(5, 200, 32768 + 7), leaf(12, 300, 32768)], 0, size=60)
    assert extents(root) == [Extent(0, 100, 5), Extent(12, 300, 32768)]


@pytest.mark.parametrize(
    ("root", "blocks"),
    [
        pytest.param(node([], 0, size=60, magic=0), {}, id="no magic"),
        pytest.param(node([], 0, size=60, count=5), {}, id="more entries than room"),
        pytest.param(node([index(0, 100)], 6, size=60), {}, id="too deep"),
        pytest.param(node([leaf(0, 100, 0)], 0, size=60), {}, id="empty extent"),
        pytest.param(node([leaf(5, 100), leaf(5, 200)], 0, size=60), {}, id="same place twice"),
        pytest.param(node([leaf(5, 100), leaf(2, 200)], 0, size=60), {}, id="backwards"),
        pytest.param(node([leaf(0xFFFFFFFF, 100, 2)], 0, size=60), {}, id="beyond the largest file"),
        pytest.param(node([leaf(0, 0)], 0, size=60), {}, id="the superblock's block"),
        pytest.param(node([leaf(0, (1 << 20) - 1, 2)], 0, size=60), {}, id="across the end of the image"),
        pytest.param(node([leaf(0, 1 << 47)], 0, size=60), {}, id="far outside"),
        pytest.param(node([index(0, 100)], 1, size=60), {100: node([], 0)}, id="empty leaf block"),
        pytest.param(node([index(0, 100)], 1, size=60), {100: node([index(0, 100)], 1)}, id="a loop"),
        pytest.param(node([index(0, 100)], 1, size=60), {100: node([leaf(0, 9)], 0, count=341)}, id="block overfull"),
        pytest.param(
            node([index(0, 100), index(1, 100)], 1, size=60), {100: node([leaf(0, 9)], 0)}, id="one leaf block twice"
        ),
    ],
)
def test_extent_tree_that_is_damaged_is_refused(root: bytes, blocks: dict[int, bytes]) -> None:
    with pytest.raises(BangerError, match=r"block|extent tree of inode 12"):
        extents(root, blocks)


def test_extent_tree_made_of_shared_blocks_ends_before_it_explodes() -> None:
    """Five levels of 340 entries that all lead to the same block below would be 340^5 visits."""
    blocks = {100 + depth: node([index(i, 99 + depth) for i in range(340)], depth) for depth in range(1, 5)}
    blocks[100] = node([leaf(i, 9) for i in range(340)], 0)
    fake = device(blocks)
    with pytest.raises(BangerError, match="out of order"):
        list(ExtentTree(fake, 12, node([index(0, 104)], 5, size=60)).extents())
    assert cast("FakeDevice", fake).reads < 20


def pointers(*numbers: int, count: int = 256) -> bytes:
    return struct.pack(f"<{count}I", *numbers, *[0] * (count - len(numbers)))


def test_block_map_reads_all_levels() -> None:
    blocks = {
        50: pointers(1000, 1001, 0, 1003),
        60: pointers(61),
        61: pointers(2000),
        70: pointers(0, 71),
        71: pointers(0, 72),
        72: pointers(0, 3000),
    }
    field = struct.pack("<15I", 10, 11, 0, 13, *[0] * 8, 50, 60, 70)
    triple = 12 + 256 + 65536 + 65536 + 256 + 1
    found = list(BlockMap(device(blocks, shift=0), 12, field, (triple + 1) * 1024).extents())
    assert found == [
        Extent(0, 10, 2),
        Extent(3, 13, 1),
        Extent(12, 1000, 2),
        Extent(15, 1003, 1),
        Extent(12 + 256, 2000, 1),
        Extent(triple, 3000, 1),
    ]


def test_block_map_beyond_the_files_size_is_not_looked_at() -> None:
    field = struct.pack("<15I", *range(100, 112), 0xFFFFFFF0, 0xFFFFFFF0, 0xFFFFFFF0)
    assert list(BlockMap(device(shift=0), 12, field, 3 * 1024).extents()) == [Extent(0, 100, 3)]


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param({60: pointers(*[61] * 256), 61: pointers(5)}, id="one block listed many times"),
        pytest.param({60: pointers(60)}, id="a loop"),
        pytest.param({60: pointers(1 << 30)}, id="outside"),
    ],
)
def test_block_map_that_is_damaged_is_refused(blocks: dict[int, bytes]) -> None:
    field = struct.pack("<15I", *[0] * 13, 60, 0)
    with pytest.raises(BangerError):
        list(BlockMap(device(blocks, shift=0), 12, field, 1 << 30).extents())


def test_block_map_of_a_file_larger_than_any_is_refused() -> None:
    with pytest.raises(BangerError, match="larger than any"):
        list(BlockMap(device(), 12, bytes(60), 1 << 63).extents())


layouts = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=6)


@given(
    layouts,
    st.integers(0, BLOCK),
    st.lists(st.tuples(st.integers(0, 40 * BLOCK), st.integers(0, 3 * BLOCK)), max_size=8),
)
def test_file_reader_agrees_with_plain_bytes(
    layout: list[tuple[int, int]], cut: int, requests: list[tuple[int, int]]
) -> None:
    blocks, found, at, content = {}, [], 0, b""
    for number, (gap, length) in enumerate(layout):
        content += bytes(gap * BLOCK)
        at += gap
        physical = 100 * (number + 1)
        found.append(Extent(at, physical, length))
        for offset in range(length):
            blocks[physical + offset] = bytes([number + 1, offset]) * (BLOCK // 2)
            content += blocks[physical + offset]
        at += length
    content = content[: max(0, len(content) - cut)] + b""
    reader = FileReader(device(blocks), lambda: iter(found), len(content))
    assert reader.readall() == content
    for offset, count in requests:
        assert reader.seek(offset) == offset
        got = b""
        while len(got) < count and (piece := reader.read(count - len(got))):
            got += piece
        assert got == content[offset : offset + count]
        assert reader.tell() == max(offset, min(offset + count, len(content))) if count else True


def test_file_reader_gives_no_more_than_a_piece_however_much_is_asked_for() -> None:
    reader = FileReader(device(), lambda: iter([]), 1 << 44)
    assert len(reader.read_some(1 << 40)) == READ_BYTES
    reader.seek(-5, 2)
    assert reader.read(10) == bytes(5)
    assert reader.read(10) == b""
