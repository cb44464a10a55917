"""The work seed: what of an image's home directory every VM gets, and what it must not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.units import MIB
from banger.rootfs.work_seed import WorkSeedStats, make_work_seed
from tests.support.ext4_reader import debugfs, listing, mke2fs, needs_e2fsprogs
from tests.support.rootfs import Listing, archive, build, directory, file, hard_link, symlink, xattrs

pytestmark = needs_e2fsprogs


def seeded(folder: Path, *members: bytes, size_bytes: int = 0) -> tuple[Listing, WorkSeedStats]:
    """Build an image of ``members`` and its seed, which e2fsck has then passed; read the seed."""
    build(folder, archive(*members), size_bytes=64 * MIB)
    stats = seed(folder / "rootfs.ext4", folder / "seed.ext4", size_bytes=size_bytes)
    return listing(folder / "seed.ext4"), stats


def seed(rootfs: Path, target: Path, size_bytes: int = 0) -> WorkSeedStats:
    return make_work_seed(rootfs, target, operation=Operation("image.register", "test"), size_bytes=size_bytes)


def test_seed_holds_what_the_home_directory_holds(tmp_path: Path) -> None:
    found, stats = seeded(
        tmp_path,
        directory(b"root", 0o750, uid=5, gid=6, mtime=77),
        xattrs({b"user.a": b"b"}),
        file(b"root/.profile", b"export A=1\n", mode=0o640, uid=1000, gid=100),
        hard_link(b"root/.login", b"root/.profile"),
        directory(b"root/work", 0o2755),
        file(b"root/work/empty"),
        symlink(b"root/work/link", b"/etc/shadow"),
        file(b"etc/shadow", b"secret"),
    )
    assert sorted(found) == [b"", b".login", b".profile", b"work", b"work/empty", b"work/link"]
    root, profile = found[b""], found[b".profile"]
    assert (root.mode, root.uid, root.gid, root.mtime_ns) == (0o750, 5, 6, 77 * 10**9)
    assert (profile.data, profile.mode, profile.uid, profile.links) == (b"export A=1\n", 0o640, 1000, 2)
    assert profile.xattrs == {b"user.a": b"b"}
    assert found[b"work/link"].data == b"/etc/shadow"
    assert found[b"work/link"].kind == stat.S_IFLNK
    assert (stats.entries, stats.file_bytes, stats.left_out) == (5, 11, 0)


def test_seed_leaves_out_keys_and_histories(tmp_path: Path) -> None:
    gone = [
        b".ssh/authorized_keys",
        b".ssh/authorized_keys2",
        b".bash_history",
        b".ash_history",
        b".python_history",
        b".lesshst",
        b".viminfo",
        b".Xauthority",
        b"ssh_host_ed25519_key",
        b"ssh_host_rsa_key.pub",
        b"etc/dropbear/dropbear_ed25519_host_key",
        b"inner/.ssh/authorized_keys",
    ]
    kept = [
        b".ssh/config",
        b".ssh/known_hosts",
        b"authorized_keys",
        b"bash_history",
        b".bashrc",
        b".ssh/authorized_keys.d",
    ]
    found, stats = seeded(tmp_path, *[file(b"root/" + name, b"x") for name in [*gone, *kept]])
    files = sorted(path for path, facts in found.items() if facts.kind == stat.S_IFREG)
    assert files == sorted(kept)
    assert stats.left_out == len(gone)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([directory(b"etc")], id="no home"),
        pytest.param([file(b"root", b"data")], id="a file"),
        pytest.param([symlink(b"root", b"/nowhere")], id="a dangling link"),
        pytest.param([symlink(b"root", b"root")], id="a loop"),
    ],
)
def test_seed_of_an_image_without_a_home_directory_is_empty_and_private(tmp_path: Path, members: list[bytes]) -> None:
    found, stats = seeded(tmp_path, *members)
    assert list(found) == [b""]
    assert (found[b""].mode, found[b""].uid, found[b""].gid) == (0o700, 0, 0)
    assert (stats.entries, stats.left_out) == (1, 0)
    assert stats.size_bytes == 256 * MIB
    assert stats.disk_bytes < 2 * MIB


def test_seed_follows_a_home_directory_that_is_a_link_only_inside_the_image(tmp_path: Path) -> None:
    up = b"../" * 30 + os.fsencode(tmp_path).lstrip(b"/")
    (tmp_path / "secret").write_text("of the host")
    found, _ = seeded(tmp_path, symlink(b"root", up), file(os.fsencode(tmp_path).lstrip(b"/") + b"/inside", b"image"))
    assert found[b"inside"].data == b"image"
    assert sorted(found) == [b"", b"inside"]


def test_seed_of_equal_images_is_equal(tmp_path: Path) -> None:
    found, _ = seeded(tmp_path, file(b"root/a", b"data" * 5000), directory(b"root/b"))
    first = (tmp_path / "seed.ext4").read_bytes()
    seed(tmp_path / "rootfs.ext4", tmp_path / "seed.ext4")
    assert (tmp_path / "seed.ext4").read_bytes() == first
    assert found[b"a"].size == 20_000


def test_seed_is_large_enough_for_a_large_home(tmp_path: Path) -> None:
    build(tmp_path, archive(*[file(b"root/%d" % index) for index in range(20_000)]), size_bytes=512 * MIB)
    stats = seed(tmp_path / "rootfs.ext4", tmp_path / "seed.ext4")
    assert stats.size_bytes > 256 * MIB
    assert stats.entries == 20_001


def test_seed_that_does_not_fit_into_the_size_asked_for_leaves_nothing(tmp_path: Path) -> None:
    build(tmp_path, archive(file(b"root/large", b"x" * (9 * MIB))), size_bytes=64 * MIB)
    with pytest.raises(BangerError) as caught:
        seed(tmp_path / "rootfs.ext4", tmp_path / "seed.ext4", size_bytes=8 * MIB)
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert not (tmp_path / "seed.ext4").exists()


def test_seed_of_an_absurd_home_is_refused(tmp_path: Path) -> None:
    build(tmp_path, archive(file(b"root/sparse", b"x")), size_bytes=64 * MIB)
    debugfs(tmp_path / "rootfs.ext4", f"sif /root/sparse size {1 << 40}")
    with pytest.raises(BangerError, match="home directory holds more than 16 GiB") as caught:
        seed(tmp_path / "rootfs.ext4", tmp_path / "seed.ext4")
    assert caught.value.kind is ErrorKind.INVALID
    assert not (tmp_path / "seed.ext4").exists()


def test_seed_of_a_damaged_image_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "tree/root/inner").mkdir(parents=True)
    image = mke2fs(tmp_path / "image", "-t", "ext4", source=tmp_path / "tree")
    debugfs(image, "sif /root/inner size 40960")
    with pytest.raises(BangerError, match="hole") as caught:
        seed(image, tmp_path / "seed.ext4")
    assert caught.value.kind is ErrorKind.INVALID
    assert not (tmp_path / "seed.ext4").exists()


def test_seed_that_nobody_wants_any_more_is_not_made(tmp_path: Path) -> None:
    build(tmp_path, archive(file(b"root/a", b"x")), size_bytes=64 * MIB)
    operation = Operation("image.register", "test")
    operation.cancel("enough")
    with pytest.raises(BangerError) as caught:
        make_work_seed(tmp_path / "rootfs.ext4", tmp_path / "seed.ext4", operation=operation)
    assert caught.value.kind is ErrorKind.CANCELLED
    assert not (tmp_path / "seed.ext4").exists()
