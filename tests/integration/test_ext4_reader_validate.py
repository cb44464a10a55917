"""Whether a user's own image may be registered: only a clean ext4 that nobody else has in hand."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.rootfs.validate import ValidatedRootfs, validate_rootfs
from tests.support.ext4_reader import debugfs, mke2fs, needs_e2fsprogs

pytestmark = needs_e2fsprogs


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A clean image with a directory in it."""
    (tmp_path / "tree/d").mkdir(parents=True)
    (tmp_path / "tree/d/f").write_text("data")
    arguments = ("-t", "ext4", "-U", "6c1f3c58-6d8a-4f36-9f6e-0d7b6a9a1b2c")
    return mke2fs(tmp_path / "my image.ext4", *arguments, source=tmp_path / "tree")


def validate(path: Path) -> ValidatedRootfs:
    return validate_rootfs(path, Operation("image.register", "test"))


def refusal(path: Path) -> BangerError:
    with pytest.raises(BangerError) as caught:
        validate(path)
    return caught.value


def test_image_that_is_clean_is_described_and_left_alone(image: Path) -> None:
    image.chmod(0o400)
    before = image.stat(), image.read_bytes()
    facts = validate(image)
    assert facts.uuid == "6c1f3c58-6d8a-4f36-9f6e-0d7b6a9a1b2c"
    assert facts.size_bytes == 16 << 20
    assert facts.disk_bytes == before[0].st_blocks * 512
    assert {"extent", "has_journal", "metadata_csum"} <= set(facts.features)
    assert (image.stat().st_mtime_ns, image.read_bytes()) == (before[0].st_mtime_ns, before[1])


def test_image_behind_a_link_is_accepted(image: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image)
    assert validate(tmp_path / "link") == validate(image)


def test_image_that_is_mounted_or_crashed_is_refused_with_the_command_that_helps(image: Path) -> None:
    debugfs(image, "feature needs_recovery")
    error = refusal(image)
    assert (error.kind, error.hint) == (ErrorKind.INVALID, f"stop what uses it, then: e2fsck -fp '{image}'")


@pytest.mark.parametrize("state", [0, 2, 3])
def test_image_that_is_not_clean_is_refused(image: Path, state: int) -> None:
    debugfs(image, f"ssv state {state}")
    error = refusal(image)
    assert (error.kind, error.hint) == (ErrorKind.INVALID, f"e2fsck -f '{image}'")
    assert "not clean" in error.message


def test_image_that_is_damaged_is_refused_in_e2fscks_words(image: Path) -> None:
    debugfs(image, "clri /d")
    error = refusal(image)
    assert error.kind is ErrorKind.INVALID
    assert "is damaged" in error.message
    assert "deleted/unused inode" in error.cause


def test_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello" * 1000)
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "text").kind is ErrorKind.INVALID
    assert refusal(tmp_path / "pipe").kind is ErrorKind.INVALID
    assert refusal(tmp_path).kind is ErrorKind.INVALID
    assert refusal(tmp_path / "none").kind is ErrorKind.NOT_FOUND


def test_image_that_is_cut_is_refused(image: Path) -> None:
    os.truncate(image, 10 << 20)
    assert "truncated" in refusal(image).message


def loop(sys_block: Path, backing: str, name: str = "loop7") -> None:
    """Let a host have a loop device, as far as /sys tells."""
    (sys_block / name / "loop").mkdir(parents=True)
    (sys_block / name / "loop" / "backing_file").write_text(backing + "\n")


@pytest.mark.parametrize("alias", ["same", "hard link"])
def test_image_that_is_a_loop_device_is_in_use(image: Path, tmp_path: Path, alias: str) -> None:
    sys_block, mountinfo = tmp_path / "block", tmp_path / "mountinfo"
    (tmp_path / "other").write_text("")
    loop(sys_block, str(tmp_path / "other"), "loop0")
    loop(sys_block, str(tmp_path / "gone"), "loop1")
    os.link(image, tmp_path / "alias")
    loop(sys_block, str(tmp_path / "alias") if alias == "hard link" else str(image))
    mountinfo.write_text("29 1 7:0 / /mnt rw - ext4 /dev/loop0 rw\n")
    with pytest.raises(BangerError) as caught:
        validate_rootfs(image, Operation("image.register", "test"), mountinfo=mountinfo, sys_block=sys_block)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.hint == "losetup -d /dev/loop7"


def test_image_that_is_mounted_is_in_use_and_the_hint_says_where(image: Path, tmp_path: Path) -> None:
    sys_block, mountinfo = tmp_path / "block", tmp_path / "mountinfo"
    debugfs(image, "feature needs_recovery")  # as the kernel sets it while a file system is mounted
    loop(sys_block, str(image))
    mountinfo.write_bytes(
        b"28 1 7:6 / /x rw - ext4 /dev/loop70 rw\n29 1 7:7 / /mnt/my\\040\xc3\xa4 rw,relatime shared:1 - ext4 /dev/loop7 rw\n"
    )
    with pytest.raises(BangerError) as caught:
        validate_rootfs(image, Operation("image.register", "test"), mountinfo=mountinfo, sys_block=sys_block)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.hint == "umount '/mnt/my ä'"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="loop devices need root")
def test_image_on_a_real_loop_device_is_in_use(image: Path) -> None:
    attached = subprocess.run(["losetup", "-r", "-f", "--show", image], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr}")
    try:
        assert refusal(image).hint == f"losetup -d {attached.stdout.strip()}"
    finally:
        subprocess.run(["losetup", "-d", attached.stdout.strip()], check=True)
    validate(image)


def test_image_that_changes_meanwhile_is_in_use(image: Path, fake_e2fsck: Path) -> None:
    fake_e2fsck.write_text('#!/bin/sh\ntouch -d 2001-01-01 "$3"\n', encoding="utf-8")
    error = refusal(image)
    assert (error.kind, error.cause) == (ErrorKind.CONFLICT, "the file changed while it was checked")


@pytest.fixture
def fake_e2fsck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is run in place of e2fsck; the test writes it."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/e2fsck"
    program.touch()
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_validation_that_is_cancelled_ends_e2fsck(image: Path, tmp_path: Path, fake_e2fsck: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    fake_e2fsck.write_text(f"#!/bin/sh\necho yes >'{started}'\nexec sleep 60\n", encoding="utf-8")
    operation = Operation("image.register", "test")
    canceller = threading.Thread(target=lambda: (started.read_text(), operation.cancel("enough")))
    canceller.start()
    begun = time.monotonic()
    with pytest.raises(BangerError) as caught:
        validate_rootfs(image, operation)
    canceller.join()
    assert caught.value.kind is ErrorKind.CANCELLED
    assert time.monotonic() - begun < 10
