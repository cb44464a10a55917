"""Images made of a base and a disk, compared with what the kernel's own overlay of the same two shows."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from banger.rootfs.disk import make_disk
from tests.support.overlays import commit, committed, comparable, image_of, needs_overlays, overlay
from tests.support.rootfs import Listing, differences, directory, file, hard_link, header, read_tree, symlink, xattrs

pytestmark = needs_overlays

BASE = (
    directory(b"./", mode=0o711),
    *(directory(name) for name in (b"a", b"a/b", b"a/b/c", b"d", b"d/e", b"many")),
    *(file(name, name * 3000, mode=0o640, uid=1, gid=2) for name in (b"a/one", b"a/b/two", b"a/b/c/three", b"d/e/x")),
    hard_link(b"d/one", b"a/one"),
    symlink(b"link", b"a/b"),
    symlink(b"d/dangling", b"/nowhere"),
    xattrs({b"user.note": b"n" * 300, b"trusted.mark": b"m"}) + file(b"d/marked", b"marked"),
    header(b"d/null", b"3", mode=0o666, device=(1, 3)),
    header(b"d/pipe", b"6", mode=0o600),
    *(file(b"many/%03d" % number, b"%d" % number) for number in range(200)),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_of(tmp_path_factory.mktemp("base") / "image", *BASE)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.ext4"
    make_disk(path, 64 << 20)
    return path


def seen(root: Path) -> Listing:
    return comparable(read_tree(root))


def change_everything(root: Path) -> None:
    """What people and package managers do, each with its own trace in the upper directory."""
    (root / "a/one").write_text("changed")  # copied up; the other name of the file keeps the old content
    (root / "a/b/two").unlink()  # a whiteout
    (root / "a/b/new").write_bytes(os.urandom(300_000))
    os.link(root / "a/b/new", root / "d/new")
    os.link(root / "d/marked", root / "d/marked-too")
    os.setxattr(root / "d/marked", "user.note", b"other")
    os.chown(root / "d/e/x", 70_000, 80_000)
    (root / "link").unlink()
    (root / "link").mkdir()  # a directory over a link
    (root / "link/in").symlink_to("../a")
    shutil.rmtree(root / "many")
    (root / "many").mkdir()  # opaque
    (root / "many/001").write_text("again")
    (root / "d/null").unlink()
    (root / "d/null").write_text("no device")
    os.mknod(root / "a/zero", 0o020600, os.makedev(1, 5))
    os.mkfifo(root / "a/pipe")
    (root / "a").chmod(0o1770)
    os.setxattr(root / "a", "user.dir", b"yes")
    os.utime(root / "d/pipe", ns=(1, 1_234_567_890_123_456_789))


def test_commit_of_a_changed_tree_equals_the_mounted_overlay(base: Path, disk: Path) -> None:
    with overlay(base, disk) as root:
        change_everything(root)
        expected = seen(root)
    assert not differences(committed(base, disk), expected)


def test_commit_of_renamed_directories_follows_their_redirects(base: Path, disk: Path) -> None:
    with overlay(base, disk) as root:
        (root / "d/e").rename(root / "d/f")  # within one directory: a name
        (root / "a/b/c").rename(root / "many/c")  # elsewhere: a path
        (root / "a/b").rename(root / "moved")
        (root / "moved").rename(root / "moved-again")
        (root / "many/c/three").write_text("after the move")
        (root / "a/b").mkdir()
        (root / "a/b/fresh").write_text("not the old one")
        expected = seen(root)
    assert b"moved-again/two" in expected
    assert not differences(committed(base, disk), expected)


def test_commit_of_a_disk_cut_off_in_use_replays_its_journal(base: Path, disk: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.ext4"
    with overlay(base, disk) as root:
        change_everything(root)
        expected = seen(root)
        os.sync()
        shutil.copyfile(disk, torn)
    headers = subprocess.run(["dumpe2fs", "-h", torn], capture_output=True, text=True, check=True).stdout
    assert "needs_recovery" in headers
    before = torn.read_bytes()
    assert not differences(committed(base, torn), expected)
    assert torn.read_bytes() == before


def test_commit_of_a_commit_changes_nothing_more(base: Path, disk: Path, tmp_path: Path) -> None:
    with overlay(base, disk) as root:
        change_everything(root)
    first = tmp_path / "first.ext4"
    commit(base, disk, first)
    second = tmp_path / "second.ext4"
    make_disk(second, 64 << 20)
    with overlay(first, second) as root:
        expected = seen(root)
    assert not differences(committed(first, second), expected)


@pytest.mark.parametrize("seed", range(6))
def test_commit_of_random_changes_equals_the_mounted_overlay(base: Path, disk: Path, seed: int) -> None:
    chance = random.Random(seed)
    with overlay(base, disk) as root:
        for _ in range(150):
            change_something(root, chance)
    with overlay(base, disk) as root:  # a second boot of the same disk
        for _ in range(150):
            change_something(root, chance)
        expected = seen(root)
    assert not differences(committed(base, disk), expected)


def change_something(root: Path, chance: random.Random) -> None:
    paths = [path for path in sorted(root.rglob("*")) if path.parts[-1] != "lost+found"]
    folders = [root, *(path for path in paths if path.is_dir() and not path.is_symlink())]
    where = chance.choice(folders) / chance.choice("one two x many e c fresh".split())
    what = chance.choice(paths)
    try:
        match chance.randrange(8):
            case 0:
                where.write_bytes(chance.randbytes(chance.randrange(20_000)))
            case 1:
                where.mkdir()
            case 2:
                what.rename(where)
            case 3:
                os.link(what, where, follow_symlinks=False)
            case 4:
                what.unlink() if not what.is_dir() or what.is_symlink() else shutil.rmtree(what)
            case 5:
                what.chmod(chance.choice([0o600, 0o755, 0o1777]), follow_symlinks=stat.S_ISLNK(what.lstat().st_mode))
            case 6:
                os.setxattr(what, f"user.{chance.randrange(3)}", chance.randbytes(9), follow_symlinks=False)
            case 7:
                where.symlink_to(what)
    except OSError:
        pass  # what the kernel refuses changes nothing
