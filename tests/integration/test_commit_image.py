"""Images made of a base and a disk that were written by hand: what stays, what is left out, what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.progress import EventKind, OperationEvent
from tests.support.ext4_reader import debugfs, needs_e2fsprogs, run
from tests.support.overlays import WHITEOUT, commit, committed, disk_of, image_of
from tests.support.rootfs import directory, file, header, symlink, xattrs

pytestmark = needs_e2fsprogs

BASE = (
    directory(b"etc"),
    file(b"etc/hostname", b"base\n"),
    file(b"etc/hosts", b"127.0.0.1 localhost\n"),
    symlink(b"etc/resolv.conf", b"../run/resolver/stub"),
    directory(b"dir"),
    file(b"dir/below", b"below"),
    directory(b"other"),
    file(b"other/file", b"other"),
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return image_of(tmp_path / "base", *BASE)


def whiteout(name: bytes) -> bytes:
    return header(name, b"3", device=WHITEOUT)


def overlay_mark(name: str, value: str = "y") -> dict[str, str]:
    return {f"trusted.overlay.{name}": value}


def test_whiteouts_hide_what_is_below_and_never_appear(base: Path, tmp_path: Path) -> None:
    disk = disk_of(
        tmp_path / "disk",
        file(b"upper/dir/below"),
        whiteout(b"upper/other"),
        whiteout(b"upper/never-was"),
        file(b"upper/empty"),
        marks={"upper/dir/below": overlay_mark("whiteout")},
    )
    found = committed(base, disk)
    assert b"dir" in found
    assert b"empty" in found
    assert not {b"dir/below", b"other", b"other/file", b"never-was"} & found.keys()


def test_directory_is_opaque_by_y_only(base: Path, tmp_path: Path) -> None:
    disk = disk_of(
        tmp_path / "disk",
        directory(b"upper/dir"),
        directory(b"upper/other"),  # "x": may hold whiteouts that are files
        marks={"upper/dir": overlay_mark("opaque", "y"), "upper/other": overlay_mark("opaque", "x")},
    )
    found = committed(base, disk)
    assert b"dir/below" not in found
    assert b"other/file" in found


def test_books_of_the_overlay_are_left_out_and_other_attributes_stay(base: Path, tmp_path: Path) -> None:
    own = {b"trusted.mine": b"m", b"user.note": b"n"}
    books = overlay_mark("origin", "o") | overlay_mark("impure") | overlay_mark("overlay.opaque")
    disk = disk_of(tmp_path / "disk", xattrs(own) + directory(b"upper/dir"), marks={"upper/dir": books})
    assert committed(base, disk)[b"dir"].xattrs == own


@pytest.mark.parametrize("redirect", ["/nowhere", "/etc/hosts", "nowhere", "/dir/below/x", "dir/below", ".", ".."])
def test_redirect_to_no_directory_of_the_image_shows_nothing(base: Path, tmp_path: Path, redirect: str) -> None:
    disk = disk_of(
        tmp_path / "disk",
        directory(b"upper/new"),
        file(b"upper/new/own", b"o"),
        marks={"upper/new": overlay_mark("redirect", redirect)},
    )
    assert {name for name in committed(base, disk) if name.startswith(b"new/")} == {b"new/own"}


def test_redirects_in_circles_end(base: Path, tmp_path: Path) -> None:
    disk = disk_of(
        tmp_path / "disk",
        directory(b"upper/dir/new"),
        directory(b"upper/dir/new/new"),
        marks={
            "upper/dir/new": overlay_mark("redirect", "/dir"),
            "upper/dir/new/new": overlay_mark("redirect", "/dir"),
        },
    )
    found = committed(base, disk)
    assert b"dir/new/new/below" in found
    assert b"dir/new/new/new" not in found


def test_redirect_that_shows_a_directory_twice_is_refused(base: Path, tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk", directory(b"upper/new"), marks={"upper/new": overlay_mark("redirect", "/")})
    with pytest.raises(BangerError, match="two names") as caught:
        commit(base, disk, tmp_path / "new.ext4")
    assert caught.value.kind is ErrorKind.INVALID


def test_file_with_its_data_elsewhere_is_refused(base: Path, tmp_path: Path) -> None:
    disk = disk_of(
        tmp_path / "disk", file(b"upper/dir/below", b"-----"), marks={"upper/dir/below": overlay_mark("metacopy")}
    )
    with pytest.raises(BangerError, match="metacopy") as caught:
        commit(base, disk, tmp_path / "new.ext4")
    assert caught.value.kind is ErrorKind.INVALID
    assert not list(tmp_path.glob("new*"))


def test_what_banger_wrote_at_first_boot_is_put_back(base: Path, tmp_path: Path) -> None:
    disk = disk_of(
        tmp_path / "disk",
        file(b"upper/etc/hostname", b"vm1\n"),
        file(b"upper/etc/hosts", b"127.0.0.1 localhost\n127.0.1.1 vm1\n"),
        file(b"upper/etc/resolv.conf", b"nameserver 10.0.2.3\n"),
    )
    found = committed(base, disk)
    assert found[b"etc/hostname"].data == b"base\n"
    assert found[b"etc/hosts"].data == b"127.0.0.1 localhost\n"
    assert found[b"etc/resolv.conf"].data == b"../run/resolver/stub"
    assert committed(base, disk, "/etc/hosts")[b"etc/hosts"].data.endswith(b"vm1\n")


def test_first_boot_files_that_the_image_lacks_are_left_out(tmp_path: Path) -> None:
    base = image_of(tmp_path / "base", directory(b"etc"))
    disk = disk_of(tmp_path / "disk", file(b"upper/etc/hostname", b"vm1\n"), whiteout(b"upper/etc/hosts"))
    assert set(committed(base, disk)) == {b"", b"etc"}


SECRETS = (
    directory(b"upper/etc"),
    file(b"upper/etc/machine-id", b"0123456789abcdef0123456789abcdef\n", mode=0o444),
    file(b"upper/etc/ssh/ssh_host_rsa_key", b"secret"),
    file(b"upper/etc/ssh/sshd_config", b"config"),
    file(b"upper/root/.ssh/authorized_keys", b"ssh-ed25519 AAAA"),
    file(b"upper/root/.ssh/config", b"config"),
    file(b"upper/home/u/.bash_history", b"typed"),
    symlink(b"upper/home/u/.zsh_history", b"/dev/null"),
    directory(b"upper/tmp", mode=0o1777),
    file(b"upper/tmp/folder/file", b"t"),
    file(b"upper/run/pid", b"1"),
)
LEFT_OUT = {
    b"etc/ssh/ssh_host_rsa_key",
    b"root/.ssh/authorized_keys",
    b"home/u/.bash_history",
    b"tmp/folder",
    b"tmp/folder/file",
    b"run/pid",
}


def test_identity_keys_and_traces_are_left_out(base: Path, tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk", *SECRETS)
    found = committed(base, disk)
    assert not LEFT_OUT & found.keys()
    assert found[b"etc/machine-id"].data == b""
    assert found[b"etc/machine-id"].mode == 0o444
    assert found[b"tmp"].mode == 0o1777
    assert {b"etc/ssh/sshd_config", b"root/.ssh/config", b"home/u/.zsh_history", b"run"} <= found.keys()


OLD = (
    file(b"etc/machine-id", b"fedcba9876543210fedcba9876543210\n"),
    file(b"etc/ssh/ssh_host_rsa_key", b"secret"),
    file(b"root/.ssh/authorized_keys", b"ssh-ed25519 AAAA"),
)


def test_secrets_of_the_base_are_left_out_too(tmp_path: Path) -> None:
    base = image_of(tmp_path / "base", *OLD)
    found = committed(base, disk_of(tmp_path / "disk"))
    assert not LEFT_OUT & found.keys()
    assert found[b"etc/machine-id"].data == b""


def test_kept_paths_stay_with_all_below_them(base: Path, tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk", *SECRETS)
    found = committed(base, disk, "/tmp/folder/file", "/etc/machine-id", "/root/.ssh/")
    assert found[b"tmp/folder/file"].data == b"t"
    assert found[b"etc/machine-id"].data.startswith(b"0123")
    assert b"root/.ssh/authorized_keys" in found
    assert b"run/pid" not in found


def test_equal_disks_give_equal_images_and_digests(base: Path, tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk", *SECRETS)
    again = shutil.copy(disk, tmp_path / "again.ext4")
    first = commit(base, disk, tmp_path / "1.ext4")
    second = commit(base, again, tmp_path / "2.ext4")
    assert first.digest == second.digest
    assert first.digest.startswith("sha256:")
    assert (tmp_path / "1.ext4").read_bytes() == (tmp_path / "2.ext4").read_bytes()
    other = disk_of(tmp_path / "other", file(b"upper/file", b"x"))
    assert commit(base, other, tmp_path / "3.ext4").digest != first.digest


def test_size_is_that_of_the_base_unless_asked_for(base: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.ext4"
    shutil.copy(base, large)
    os.truncate(large, 2 << 30)
    run("resize2fs", large)
    assert commit(large, disk_of(tmp_path / "disk"), tmp_path / "new.ext4").size_bytes == 2 << 30


@pytest.mark.parametrize(
    "member",
    [directory(b"lost+found"), file(b"upper", b"a file"), symlink(b"upper", b"real"), header(b"upper", b"6")],
    ids=["missing", "file", "link", "pipe"],
)
def test_disk_without_an_upper_directory_is_refused(base: Path, tmp_path: Path, member: bytes) -> None:
    disk = image_of(tmp_path / "disk", directory(b"real"), member)
    with pytest.raises(BangerError, match='no directory "upper"') as caught:
        commit(base, disk, tmp_path / "new.ext4")
    assert caught.value.kind is ErrorKind.INVALID
    assert not list(tmp_path.glob("new*"))


def test_disk_that_is_no_file_system_is_refused(base: Path, tmp_path: Path) -> None:
    disk = tmp_path / "noise.ext4"
    disk.write_bytes(os.urandom(1 << 20))
    with pytest.raises(BangerError, match="cannot be repaired") as caught:
        commit(base, disk, tmp_path / "new.ext4")
    assert caught.value.kind is ErrorKind.INVALID
    assert not list(tmp_path.glob("new*"))


def test_directory_that_contains_itself_is_no_endless_walk(base: Path, tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk", directory(b"upper/a"), directory(b"upper/a/b"), file(b"upper/a/b/c", b"c"))
    debugfs(disk, "link upper/a upper/a/b/loop")  # e2fsck takes such a second name away
    found = committed(base, disk)
    assert found[b"a/b/c"].data == b"c"
    assert b"a/b/loop" not in found


@pytest.mark.parametrize("step", ["copy disk", "merge disk", "write file system", "check file system"])
def test_cancel_in_any_step_leaves_nothing(base: Path, tmp_path: Path, step: str) -> None:
    disk = disk_of(tmp_path / "disk", *SECRETS)
    operation = Operation("image.commit", "test")

    def cancel(event: OperationEvent) -> None:
        if event.kind is EventKind.STEP_STARTED and event.step == step:
            operation.cancel()

    operation.begin()
    operation.subscribe(cancel)
    with pytest.raises(BangerError) as caught:
        commit(base, disk, tmp_path / "new.ext4", operation=operation)
    assert caught.value.kind is ErrorKind.CANCELLED
    assert not list(tmp_path.glob("new*"))
