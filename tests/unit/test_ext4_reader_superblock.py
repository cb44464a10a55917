"""What the reader says to superblocks that it does not like."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.ext4.reader_superblock import read_superblock
from tests.support.ext4_reader import superblock, superblock_bytes

ENOUGH = 1 << 60


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (0x1, "compression"),
        (0x8, "journal_dev"),
        (0x10, "meta_bg"),
        (0x400, "ea_inode"),
        (0x8000, "inline_data"),
        (0x10000, "encrypt"),
        (0x20000, "casefold"),
        (0x80000000, "0x80000000"),
    ],
)
def test_superblock_with_an_unsupported_feature_is_refused_by_its_name(bit: int, name: str) -> None:
    with pytest.raises(BangerError, match=f'feature "{name}"') as caught:
        superblock(incompat=0x2C2 | bit)
    assert caught.value.kind is ErrorKind.INVALID


def test_superblock_with_a_journal_to_replay_says_what_to_type() -> None:
    with pytest.raises(BangerError, match="not unmounted cleanly") as caught:
        read_superblock(bytes(superblock_bytes(incompat=0x2C2 | 0x4)), ENOUGH, "my image.ext4")
    assert caught.value.hint.endswith("e2fsck -fp 'my image.ext4'")


def test_superblock_names_its_features_and_keeps_unknown_read_only_ones() -> None:
    found = superblock(at_0x5c=0x4 | 0x20, at_0x64=0x400, at_0x66=0x4000)
    assert {"has_journal", "dir_index", "metadata_csum", "0x40000000", "extent", "64bit"} <= set(found.features)


@pytest.mark.parametrize(("state", "clean"), [(1, True), (0, False), (3, False)])
def test_superblock_tells_whether_it_is_clean(state: int, clean: bool) -> None:
    assert superblock(at_0x3a=state).is_clean is clean


@pytest.mark.parametrize(
    "fields",
    [
        {"at_0x28": 0},
        {"at_0x20": 0, "at_0x22": 0},
        {"at_0x58": 0},
        {"at_0x58": 384},
        {"at_0x58": 8192},
        {"at_0xfe": 0},
        {"at_0xfe": 48},
        {"at_0xfe": 4096},
        {"at_0x54": 2},
        {"at_0x14": 1},
        {"at_0x0": 5},
        {"shift": 7},
        {"at_0x1a": 0x7FFF},
        {"blocks": 0},
        {"blocks": (1 << 63)},
        {"inodes_per_group": 40000},
    ],
)
def test_superblock_that_contradicts_itself_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(BangerError) as caught:
        superblock(**fields)
    assert caught.value.kind is ErrorKind.INVALID


def test_superblock_of_more_blocks_than_the_file_has_is_refused_as_truncated() -> None:
    raw = bytes(superblock_bytes(blocks=1000))
    assert read_superblock(raw, 4_096_000).blocks == 1000
    with pytest.raises(BangerError, match="truncated"):
        read_superblock(raw, 4_095_999)


@pytest.mark.parametrize("content", [b"", b"x" * 1500, bytes(4096)])
def test_image_that_is_no_file_system_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(BangerError, match="not an ext4") as caught:
        Ext4Reader(tmp_path / "image")
    assert caught.value.kind is ErrorKind.INVALID


def test_image_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        Ext4Reader(tmp_path / "image")
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_image_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="not a regular file"):
        Ext4Reader(tmp_path)
