"""The parts of the ext4 writer that are pure arithmetic, held to the format's documentation."""

from __future__ import annotations

import struct

import pytest

from banger.core.errors import BangerError
from banger.rootfs.ext4.blocks import FreeBlocks, ImageFullError
from banger.rootfs.ext4.checksum import INITIAL, crc32c
from banger.rootfs.ext4.data import DataWriter
from banger.rootfs.ext4.directories import directory_data
from banger.rootfs.ext4.extents import BLOCK_ENTRIES, extent_tree, inline_extents
from banger.rootfs.ext4.inodes import XATTR_ROOM, InodeContent, device_field, pack_inode
from banger.rootfs.ext4.metadata import number_nodes
from banger.rootfs.ext4.xattrs import XattrSet
from banger.rootfs.nodes import Device, Directory, Extent, File, Symlink
from banger.rootfs.parallel_layers import share_out
from banger.rootfs.reader import ChunkReader

BLOCK = 4096


def test_crc32c_agrees_with_its_published_check_value() -> None:
    assert crc32c(INITIAL, b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def spread(count: int) -> list[Extent]:
    """Extents that can't be joined."""
    return [Extent(2 * index, 1000 + 2 * index, 1) for index in range(count)]


@pytest.mark.parametrize(
    ("count", "depth", "further"),
    [
        (0, 0, 0),
        (4, 0, 0),
        (5, 1, 1),
        (BLOCK_ENTRIES, 1, 1),
        (4 * BLOCK_ENTRIES, 1, 4),
        (4 * BLOCK_ENTRIES + 1, 2, 6),
    ],
)
def test_extent_tree_grows_by_levels(count: int, depth: int, further: int) -> None:
    blocks: list[bytes] = []

    def store(block: bytes) -> int:
        blocks.append(block)
        return len(blocks)

    root, stored = extent_tree(spread(count), 1, store)

    assert struct.unpack_from("<H", root, 6) == (depth,)
    assert (stored, len(blocks)) == (further, further)
    assert len(root) == 60
    assert all(len(block) == BLOCK for block in blocks)


def test_extent_tree_index_leads_to_the_right_leaf() -> None:
    blocks: list[bytes] = []

    def store(block: bytes) -> int:
        blocks.append(block)
        return 2**40 + len(blocks)

    root, _ = extent_tree(spread(BLOCK_ENTRIES + 1), 1, store)

    logical, low, high = struct.unpack_from("<IIH", root, 12 + 12)
    assert logical == 2 * BLOCK_ENTRIES
    assert low | high << 32 == 2**40 + 2
    assert struct.unpack_from("<I", blocks[1], 12) == (logical,)


def test_extent_tree_of_two_index_blocks_tells_where_each_begins() -> None:
    per_index_block = BLOCK_ENTRIES * BLOCK_ENTRIES
    root, _ = extent_tree(spread(per_index_block + 1), 1, lambda _: 1)

    assert struct.unpack_from("<I", root, 12 + 12) == (2 * per_index_block,)


def test_extent_tree_small_is_read_back() -> None:
    extents = [Extent(0, 2**33 + 5, 32768), Extent(32768, 7, 1)]
    root, _ = extent_tree(extents, 1, lambda _: 0)

    assert inline_extents(root) == extents


def test_directory_entries_fill_blocks_without_a_gap() -> None:
    folder = Directory(0o755, 0, 0, 0)
    for index in range(1000):
        folder.entries[b"n" * (1 + index % 255)] = File(0o644, 0, 0, 0)
        folder.entries[b"%d" % index] = Symlink(0o777, 0, 0, 0, target=b"x")
    order = number_nodes(folder, 11)
    data = directory_data(folder, 1)

    names = []
    for start in range(0, len(data), BLOCK):
        at = start
        while at < start + BLOCK - 12:
            number, length, name_length, _ = struct.unpack_from("<IHBB", data, at)
            names.append((number, data[at + 8 : at + 8 + name_length]))
            assert length % 4 == 0
            at += length
        assert at == start + BLOCK - 12
        assert data[at : at + 8] == struct.pack("<IHBB", 0, 12, 0, 0xDE)
    assert names[:2] == [(2, b"."), (2, b"..")]
    assert names[2:] == [(node.number, name) for name, node in folder.entries.items()]
    assert len(order) == len(folder.entries) + 1


def test_numbering_counts_names_and_subdirectories() -> None:
    root = Directory(0o755, 0, 0, 0)
    shared = File(0o644, 0, 0, 0)
    inner = Directory(0o755, 0, 0, 0)
    root.entries = {b"a": shared, b"d": inner, b"b": shared}
    inner.entries = {b"c": shared}

    order = number_nodes(root, 11)

    assert [node.number for node in order] == [2, 11, 12]
    assert (root.links, inner.links, shared.links) == (3, 2, 3)


def test_numbering_of_a_file_with_too_many_names_is_refused() -> None:
    root = Directory(0o755, 0, 0, 0)
    shared = File(0o644, 0, 0, 0)
    root.entries = {b"%d" % index: shared for index in range(65_001)}

    with pytest.raises(BangerError, match="more than 65000 names"):
        number_nodes(root, 11)


@pytest.mark.parametrize(
    ("moment_ns", "seconds", "epoch"),
    [
        (0, 0, 0),
        (-5_500_000_000, 0xFFFFFFFA, 0),
        ((2**31 - 1) * 10**9, 2**31 - 1, 0),
        (2**31 * 10**9, 2**31, 1),
        (2**33 * 10**9, 0, 2),
        (10**30, 2**31 - 1, 3),
        (-(10**30), 2**31, 0),
    ],
)
def test_inode_time_has_34_bits_and_is_clamped(moment_ns: int, seconds: int, epoch: int) -> None:
    raw = pack_inode(File(0o644, 0, 0, moment_ns), InodeContent(), 1)

    (stored,) = struct.unpack_from("<I", raw, 16)
    (extra,) = struct.unpack_from("<I", raw, 136)
    assert (stored, extra & 3) == (seconds, epoch)
    assert extra >> 2 < 10**9


def test_device_numbers_use_the_old_form_where_it_fits() -> None:
    assert device_field(Device(0o600, 0, 0, 0, major=1, minor=3)) == struct.pack("<I", 0x103)


def test_device_numbers_beyond_a_byte_use_the_new_form() -> None:
    field = device_field(Device(0o600, 0, 0, 0, major=0x12C, minor=0x11170))

    assert field == struct.pack("<II", 0, 0x11112C70)


def test_xattrs_small_fit_into_the_inode_and_large_ones_do_not() -> None:
    assert XattrSet({b"security.capability": bytes(20)}).in_inode(XATTR_ROOM) is not None
    assert XattrSet({b"user.a": bytes(100)}).in_inode(XATTR_ROOM) is None


def test_xattrs_beyond_one_block_are_refused() -> None:
    with pytest.raises(BangerError, match="4 KiB"):
        XattrSet({b"user.a": bytes(5000)}).block(1, 1)


def test_xattrs_of_foreign_namespaces_and_overlayfs_are_left_out() -> None:
    names = [
        b"com.apple.provenance",
        b"trusted.overlay.opaque",
        b"user.overlay.whiteout",
        b"security.selinux",
        b"system.nfs4_acl",
        b"user.",
    ]

    assert not XattrSet(dict.fromkeys(names, b"x"))


@pytest.mark.parametrize("value", [b"", b"\2\0\0", b"\1\0\0\0", b"\2\0\0\0" + bytes(7)])
def test_xattrs_malformed_acl_is_refused(value: bytes) -> None:
    with pytest.raises(BangerError, match="ACL"):
        XattrSet({b"system.posix_acl_access": value})


def test_free_blocks_writers_take_from_opposite_ends_until_they_meet() -> None:
    free = FreeBlocks([(100, 10), (200, 5)])

    assert free.take(0, 4) == (100, 4)
    assert free.take(1, 4) == (201, 4)
    assert free.take(1, 4) == (200, 1)
    assert free.take(1, 4) == (106, 4)
    assert free.take(0, 4) == (104, 2)
    with pytest.raises(ImageFullError):
        free.take(0)


def test_free_blocks_given_back_are_taken_again() -> None:
    free = FreeBlocks([(100, 10)])
    start, count = free.take(0, 8)
    free.give_back(0, (start + 3, count - 3))

    assert free.take(0, 8) == (103, 5)


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [([], []), ([5], [[0]]), ([1, 9, 2, 3], [[1], [3, 2, 0]]), ([0, 0, 0], [[0, 2], [1]])],
)
def test_share_out_balances_and_never_depends_on_chance(sizes: list[int], shares: list[list[int]]) -> None:
    assert share_out(sizes, 2) == shares


class FakeSupply(FreeBlocks):
    """Blocks in small reservations."""

    def take(self, writer: int, wanted: int = 3) -> tuple[int, int]:
        return super().take(writer, wanted)


def stored(tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk: int) -> tuple[list[Extent], bytes]:
    """Write ``data`` as one file and put it together again from its extents."""
    path = tmp_path_factory.mktemp("data") / "image"
    with path.open("w+b") as image:
        writer = DataWriter(image.fileno(), FakeSupply([(10, 7), (20, 1000)]), 0)
        chunks = (data[at : at + chunk] for at in range(0, len(data), chunk))
        extents = writer.store(ChunkReader(chunks), len(data))
        writer.close()
        found = bytearray(len(data))
        for extent in extents:
            image.seek(extent.physical * BLOCK)
            at = extent.logical * BLOCK
            piece = image.read(extent.length * BLOCK)[: len(data) - at]
            found[at : at + len(piece)] = piece
    return extents, bytes(found)


@pytest.mark.parametrize("chunk", [1000, 65536, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, 65536, 200_001, 1_000_000])
def test_data_writer_stores_what_it_reads(tmp_path_factory: pytest.TempPathFactory, size: int, chunk: int) -> None:
    data = bytes(index * 7 % 251 + 1 for index in range(size))

    extents, found = stored(tmp_path_factory, data, chunk)

    assert found == data
    assert sum(extent.length for extent in extents) == -(-size // BLOCK)


def test_data_writer_leaves_aligned_runs_of_zeros_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = b"x" * 65536 + bytes(3 * 65536) + b"y" * 10 + bytes(100_000)

    extents, found = stored(tmp_path_factory, data, 10_000)

    assert found == data
    assert sum(extent.length for extent in extents) == 16 + 16
