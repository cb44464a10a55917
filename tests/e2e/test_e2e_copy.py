"""Copying between host and guest, both ways."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

import pytest

from tests.support.daemon import BangerHome
from tests.support.soak import IS_SOAK
from tests.support.tars import archive, entry, read_archive

pytestmark = pytest.mark.boot

#: More than any buffer on the way.
MANY_BYTES = 100_000_000 if IS_SOAK else 30_000_000


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.slow
def test_cp_of_many_megabytes_arrives_whole_both_ways(home: BangerHome, vm: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(hashlib.shake_256(b"copy").digest(MANY_BYTES))
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


def test_files_whose_size_says_nothing_come_with_their_content(home: BangerHome, vm: str, tmp_path: Path) -> None:
    try:
        home.run("vm", "cp", f"{vm}:/proc/cpuinfo", str(tmp_path)).ok()
        assert "processor" in (tmp_path / "cpuinfo").read_text()
        home.run("vm", "cp", "/proc/cpuinfo", f"{vm}:/var/tmp/").ok()
        assert "processor" in home.guest(vm, "cat /var/tmp/cpuinfo").ok().text
        partly = home.run("vm", "cp", f"{vm}:/proc/sys/net/ipv4/route", str(tmp_path))
        assert partly.code == 9
        assert "left out: route/flush: it cannot be read" in partly.errors
        assert int((tmp_path / "route" / "max_size").read_text()) > 0
        assert not (tmp_path / "route" / "flush").exists()
        endless = home.run("vm", "cp", f"{vm}:/proc/kmsg", str(tmp_path))
        assert endless.code == 9
        assert not (tmp_path / "kmsg").exists()
    finally:
        home.guest(vm, "rm -f /var/tmp/cpuinfo").ok()


def test_links_modes_and_names_are_those_of_docker_cp(home: BangerHome, vm: str, tmp_path: Path) -> None:
    script = (
        "cd /var/tmp; mkdir -m 700 d; echo 1 > d/f; ln -s /etc/passwd d/abs; ln -s ../../.. d/up; ln -s none d/dangling;"
        " ln d/f d/hard; touch -d @5 d/f; ln -s d to-d; ln -s d/f to-f; mkdir -p d/d; mkfifo d/d/pipe"
    )
    try:
        home.guest(vm, script).ok()
        partly = home.run("vm", "cp", f"{vm}:/var/tmp/d", str(tmp_path))
        assert (partly.code, partly.errors) == (9, "left out: d/d/pipe: a device or a pipe\n")
        home.guest(vm, "rm /var/tmp/d/d/pipe").ok()
        copy = tmp_path / "d"
        assert copy.stat().st_mode & 0o777 == 0o700
        assert {path.name: str(path.readlink()) for path in copy.iterdir() if path.is_symlink()} == {
            "abs": "/etc/passwd",
            "up": "../../..",
            "dangling": "none",
        }
        assert (copy / "hard").stat().st_ino == (copy / "f").stat().st_ino
        assert (copy / "f").stat().st_mtime == 5

        home.run("vm", "cp", f"{vm}:/var/tmp/to-d", str(tmp_path)).ok()
        assert (tmp_path / "to-d").readlink() == Path("d")
        home.run("vm", "cp", f"{vm}:/var/tmp/to-d/", str(tmp_path / "slash")).ok()
        home.run("vm", "cp", "-L", f"{vm}:/var/tmp/to-f", str(tmp_path / ("l" * 120))).ok()
        assert (tmp_path / "slash" / "f").read_text() == (tmp_path / ("l" * 120)).read_text() == "1\n"

        home.run("vm", "cp", str(copy), f"{vm}:/var/tmp/to-d/").ok()
        home.run("vm", "cp", f"{vm}:/var/tmp/d/.", f"{vm}:/var/tmp/again").ok()
        text = home.guest(vm, "cd /var/tmp; cat d/d/f again/f; stat -c '%a %u' d/d again; readlink again/abs").ok().text
        assert text == "1\n1\n700 0\n700 0\n/etc/passwd\n"

        for target, code in (("to-f", 0), ("d/f/", 4), ("none/x", 3), ("none/", 3), ("d", 0)):
            assert home.run("vm", "cp", str(copy / "f"), f"{vm}:/var/tmp/{target}").code == code, target
        assert home.guest(vm, "readlink /var/tmp/to-f").ok().text == "d/f\n", "a link at the target is followed"
        (tmp_path / "in-the-way" / "f").mkdir(parents=True)
        assert home.run("vm", "cp", f"{vm}:/var/tmp/d/f", str(tmp_path / "in-the-way")).code == 4
    finally:
        home.guest(vm, "cd /var/tmp && rm -rf d to-d to-f again").ok()


def test_tar_streams_go_both_ways(home: BangerHome, vm: str) -> None:
    names = ("ümlaut", "n" * 150)
    data = archive(*(entry(f"in/{name}", data=name.encode(), uid=7) for name in names), form=tarfile.PAX_FORMAT)
    try:
        home.run("vm", "cp", "-", f"{vm}:/var/tmp", stdin=gzip.compress(data)).ok()
        assert home.guest(vm, "stat -c %u /var/tmp/in/ümlaut").ok().text == "7\n"
        found = read_archive([home.run("vm", "cp", f"{vm}:/var/tmp/in", "-").ok().output])
        assert {name: content for name, (info, content) in found.items() if info.isreg()} == {
            f"in/{name}": name.encode() for name in names
        }
        assert home.run("vm", "cp", "-", f"{vm}:/var/tmp/none", stdin=data).code == 3
        assert home.run("vm", "cp", "-", f"{vm}:/var/tmp", stdin=data[:900]).code == 9
    finally:
        home.guest(vm, "rm -rf /var/tmp/in").ok()
