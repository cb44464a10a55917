"""Fresh disks for VMs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import GIB, MIB, TIB
from banger.rootfs.disk import make_disk
from banger.rootfs.tools import check_file_system
from tests.support.rootfs import read_image

pytestmark = pytest.mark.skipif(
    shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None, reason="e2fsprogs is not installed"
)


@pytest.mark.parametrize("size", [16 * MIB, 10 * GIB])
def test_disk_is_clean_sparse_and_empty(tmp_path: Path, size: int) -> None:
    disk = tmp_path / "disk.ext4"

    make_disk(disk, size, label="work")

    facts = disk.stat()
    assert facts.st_size == size
    assert facts.st_blocks * 512 < 8 * MIB
    assert facts.st_mode & 0o077 == 0
    check_file_system(disk)
    assert sorted(read_image(disk)) == [b"", b"lost+found"]
    shown = subprocess.run(["/usr/sbin/dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout
    assert "Filesystem volume name:   work" in shown


def test_disks_have_uuids_of_their_own(tmp_path: Path) -> None:
    make_disk(tmp_path / "a", 16 * MIB)
    make_disk(tmp_path / "b", 16 * MIB)

    first, second = ((tmp_path / name).read_bytes()[1024 + 104 : 1024 + 120] for name in "ab")
    assert first != second


def test_disk_size_is_cut_to_whole_blocks(tmp_path: Path) -> None:
    make_disk(tmp_path / "a", 16 * MIB + 5000)

    assert (tmp_path / "a").stat().st_size == 16 * MIB + 4096


def test_disk_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"somebody's work")

    with pytest.raises(BangerError) as caught:
        make_disk(tmp_path / "a", 16 * MIB)

    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    assert (tmp_path / "a").read_bytes() == b"somebody's work"


@pytest.mark.parametrize(
    ("size", "label", "kind"),
    [
        (1000, "", ErrorKind.INVALID),
        (16 * MIB, "a label that is too long", ErrorKind.INVALID),
        (2**62, "", ErrorKind.EXHAUSTED),
        (1024 * TIB * 1024, "", ErrorKind.EXHAUSTED),
    ],
)
def test_disk_that_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, size: int, label: str, kind: ErrorKind
) -> None:
    with pytest.raises(BangerError) as caught:
        make_disk(tmp_path / "a", size, label)

    assert caught.value.kind is kind
    assert list(tmp_path.iterdir()) == []


def test_disk_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        make_disk(tmp_path / "no" / "a", 16 * MIB)

    assert caught.value.kind is ErrorKind.UNAVAILABLE
