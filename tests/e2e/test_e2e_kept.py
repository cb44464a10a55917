"""What was reported as copied, and what the guest has synced, is on disk: machines that are killed right afterwards."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.rootfs.ext4.reader import Ext4Reader
from tests.support.daemon import BangerHome
from tests.support.tars import archive, entry

pytestmark = pytest.mark.boot

NAMES = ("ümlaut", "new\nline", "-dash", "n" * 200)


@pytest.fixture(scope="module")
def kept(home: BangerHome, busybox: str) -> Iterator[str]:
    """A VM with a home disk that was killed as soon as it was reported as running, and started again."""
    home.run(
        "vm", "run", "-d", "--name", "kept", "--home-disk", "kept", "--home-size", "64M", "--memory", "256M", busybox
    ).ok()  # fmt: skip
    home.run("vm", "kill", "kept").ok()
    home.run("vm", "start", "kept").ok()
    yield "kept"
    home.run("vm", "delete", "--force", "kept").ok()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory that is copied to / and reaches two disks there."""
    tree = tmp_path / "tree"
    for place in ("data", "root/below"):
        (tree / place).mkdir(parents=True)
        for name in NAMES:
            (tree / place / name).write_text(name)
    (tree / "data" / "link").symlink_to("/no/where")
    (tree / "data").chmod(0o750)
    return tree


def test_what_was_copied_or_synced_outlives_every_kill(home: BangerHome, kept: str, tree: Path, tmp_path: Path) -> None:
    check_own_files(home, kept)
    for number in range(3):
        (tmp_path / "small").write_text(f"{number}\n" * 10)
        home.run("vm", "cp", str(tmp_path / "small"), f"{kept}:/small-{number}").ok()
    home.guest(kept, "echo synced > /synced; dd if=/synced of=/by-guest conv=fsync 2>/dev/null; echo lost > /lost").ok()
    home.run("vm", "cp", f"{tree}/.", f"{kept}:/").ok()
    home.run("vm", "kill", kept).ok()

    home.run("vm", "grow", kept, "--disk", "20G").ok()
    home.run("image", "commit", kept, "--name", "after-kill").ok()
    rootfs = home.data / "images" / home.json("image", "show", "after-kill")["id"] / "rootfs.ext4"
    with Ext4Reader(rootfs) as image:
        for number in range(3):
            with image.open(image.resolve(f"/small-{number}".encode())) as file:
                assert file.readall().decode() == f"{number}\n" * 10, "the commit sees what the journal holds"
    home.run("image", "delete", "after-kill").ok()

    home.run("vm", "start", kept).ok()
    assert home.guest(kept, "cat /small-0 /small-1 /small-2 /by-guest").ok().text == (
        "".join(f"{number}\n" * 10 for number in range(3)) + "synced\n"
    )
    home.run("vm", "cp", f"{kept}:/data", str(tmp_path / "back")).ok()
    home.run("vm", "cp", f"{kept}:/root/below", str(tmp_path / "home")).ok()
    for place in ("back", "home"):
        assert {path.name: path.read_text() for path in (tmp_path / place).iterdir() if not path.is_symlink()} == {
            name: name for name in NAMES
        }
    assert (tmp_path / "back" / "link").readlink() == Path("/no/where")
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o750

    check_own_files(home, kept)
    copy_tar(home, kept)
    [pid] = [vm["pid"] for vm in home.json("vm", "list") if vm["name"] == kept]
    os.kill(pid, signal.SIGKILL)
    home.run("vm", "wait", kept, "--until", "stopped").ok()
    home.run("image", "commit", kept, "--name", "after-crash").ok()
    rootfs = home.data / "images" / home.json("image", "show", "after-crash")["id"] / "rootfs.ext4"
    with Ext4Reader(rootfs) as image, image.open(image.resolve(b"/srv/from-tar")) as file:
        assert file.readall() == b"tar" * 100_000
    home.run("image", "delete", "after-crash").ok()


def copy_tar(home: BangerHome, vm: str) -> None:
    data = archive(entry("srv", tarfile.DIRTYPE), entry("srv/from-tar", data=b"tar" * 100_000), form=tarfile.PAX_FORMAT)
    home.run("vm", "cp", "-", f"{vm}:/", stdin=io.BytesIO(data).getvalue()).ok()


def check_own_files(home: BangerHome, vm: str) -> None:
    """What banger writes at the first boot is there once and whole, though the VM was killed right after it."""
    own = home.guest(vm, "cat /etc/hosts /etc/resolv.conf /etc/hostname /etc/passwd /etc/group").ok().text
    lines = own.splitlines()
    for line in ("127.0.0.1\tlocalhost", "127.0.1.1\tkept", "kept", "root:x:0:"):
        assert lines.count(line) == 1, own
    assert own.count("nameserver") == 1, own
    assert [line for line in lines if line.startswith("root:x:0:0:")], own
