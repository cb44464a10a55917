"""Copying between host and guest, both ways."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.support.daemon import BangerHome

pytestmark = pytest.mark.boot

HUNDRED_MB = 100_000_000


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.slow
def test_cp_of_a_hundred_megabytes_arrives_whole_both_ways(home: BangerHome, vm: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(hashlib.shake_256(b"copy").digest(HUNDRED_MB))
    try:
        home.run("vm", "cp", str(source), f"{vm}:/var/tmp/big").ok()
        assert home.guest(vm, "sha256sum < /var/tmp/big").ok().text.split()[0] == digest(source)
        home.run("vm", "cp", f"{vm}:/var/tmp/big", str(back)).ok()
        assert digest(back) == digest(source)
    finally:
        home.guest(vm, "rm -f /var/tmp/big").ok()


def test_cp_of_a_directory_keeps_names_modes_and_links(home: BangerHome, vm: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub dir").mkdir(parents=True)
    (tree / "sub dir" / "script").write_text("#!/bin/sh\necho run\n")
    (tree / "sub dir" / "script").chmod(0o755)
    (tree / "link").symlink_to("sub dir/script")
    try:
        home.run("vm", "cp", str(tree), f"{vm}:/var/tmp/").ok()
        assert home.guest(vm, "/var/tmp/tree/link").ok().text == "run\n"
        home.run("vm", "cp", f"{vm}:/var/tmp/tree", str(tmp_path / "back")).ok()
        assert (tmp_path / "back" / "link").readlink() == Path("sub dir/script")
        assert (tmp_path / "back" / "sub dir" / "script").stat().st_mode & 0o777 == 0o755
    finally:
        home.guest(vm, "rm -rf /var/tmp/tree").ok()


def test_cp_of_what_is_not_there_says_so_and_writes_nothing(home: BangerHome, vm: str, tmp_path: Path) -> None:
    result = home.run("vm", "cp", f"{vm}:/no/such/file", str(tmp_path / "target"))
    assert result.code == 3
    assert "/no/such/file" in result.errors
    assert not (tmp_path / "target").exists()
