"""Generations: what every storage driver makes of a disk at one instant, and the disks that it makes of them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB
from banger.host import kept_disk
from banger.posix import copying
from banger.rootfs.resize import file_system_bytes
from banger.storage import files
from tests.support.ext4_reader import needs_e2fsprogs, run
from tests.support.forked import forked
from tests.support.storage import (
    DRIVERS,
    Rig,
    digest,
    driver_rig,
    image,
    operation,
    read_file,
    write_file,
)

pytestmark = needs_e2fsprogs


@pytest.fixture(params=DRIVERS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with driver_rig(request.param, tmp_path) as rig:
        yield rig


@pytest.fixture
def rootfs(rig: Rig) -> Path:
    return image(rig.layout.data / "images" / "rootfs.ext4")


def freeze(rig: Rig, vm_id: str = "cafe", name: str = "generation") -> Path:
    """A generation of what the VM's disk is now."""
    into = rig.layout.staging / name
    into.mkdir()
    rig.storage.freeze(vm_id, rig.vm_dir(vm_id), into, CancelToken())
    return into


def fork(rig: Rig, generation: Path, vm_id: str) -> None:
    rig.storage.fork(generation, rig.vm_dir(vm_id), operation())


def digests(generation: Path) -> dict[str, str]:
    return {file.name: digest(file) for file in generation.iterdir()}


def test_fork_has_what_was_on_the_disk_at_that_instant_and_nothing_later(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    disk = rig.disk(rootfs)
    write_file(disk, "before", "1\n")
    generation = freeze(rig)  # while the devices are there, as of a machine that stands still
    write_file(disk, "after", "2\n")
    fork(rig, generation, "beef")
    forked = rig.disk(rootfs, "beef")
    assert (read_file(forked, "before"), read_file(forked, "after")) == ("1\n", "")
    assert file_system_bytes(forked) == file_system_bytes(disk)
    run("e2fsck", "-fn", forked)


@pytest.mark.parametrize("comes_up", [True, False])
def test_vm_gets_the_disk_of_a_generation_in_the_place_of_its_own_or_has_its_own_again(
    rig: Rig, rootfs: Path, comes_up: bool
) -> None:
    rig.create(rootfs)
    generation = freeze(rig)
    write_file(rig.disk(rootfs), "later", "1\n")
    rig.detach()
    new, own = rig.layout.staging / "new", digests(rig.vm_dir())
    new.mkdir()
    rig.storage.fork(generation, new, operation())
    kept_disk.change(rig.vm_dir(), new)
    assert read_file(rig.disk(rootfs), "later") == ""
    rig.detach()
    if comes_up:
        assert kept_disk.give_up(rig.vm_dir(), rig.layout) is not None
    else:
        kept_disk.put_back(rig.vm_dir())
        assert digests(rig.vm_dir()) == own
    kept_disk.put_back(rig.vm_dir())  # decided: there is nothing left to put back
    assert read_file(rig.disk(rootfs), "later") == ("" if comes_up else "1\n")
    assert not kept_disk.is_kept(rig.vm_dir())


def test_generation_never_changes_and_forks_see_nothing_of_each_other(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    write_file(rig.disk(rootfs), "kept", "written\n")
    generation = freeze(rig)
    before = digests(generation)
    for vm_id in ("beef", "f00d"):
        fork(rig, generation, vm_id)
        write_file(rig.disk(rootfs, vm_id), "own", f"{vm_id}\n")
    write_file(rig.disk(rootfs), "own", "parent\n")
    grandchild = freeze(rig, "beef", "second")
    fork(rig, grandchild, "feed")
    for vm_id, own in (("beef", "beef\n"), ("f00d", "f00d\n"), ("cafe", "parent\n"), ("feed", "beef\n")):
        disk = rig.disk(rootfs, vm_id)
        assert (read_file(disk, "kept"), read_file(disk, "own")) == ("written\n", own)
    assert digests(generation) == before
    assert all(file.stat().st_mode & 0o777 == 0o400 for file in generation.iterdir())


def test_fork_lives_on_when_the_generation_and_the_parent_are_gone(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    write_file(rig.disk(rootfs), "kept", "written\n")
    generation = freeze(rig)
    fork(rig, generation, "beef")
    rig.detach()
    rig.storage.remove(rig.vm_dir())
    shutil.rmtree(generation)
    assert read_file(rig.disk(rootfs, "beef"), "kept") == "written\n"


def test_fork_grows_like_any_other_disk(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    fork(rig, freeze(rig), "beef")
    rig.storage.grow(rig.vm_dir("beef"), 160, operation())
    assert file_system_bytes(rig.disk(rootfs, "beef")) == 160 * MIB


def test_generation_and_fork_of_a_large_disk_take_what_was_written(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs, size_mib=4096)
    write_file(rig.disk(rootfs), "large", "x" * (4 * MIB))
    wanted = rig.storage.fill("cafe", rig.vm_dir()).used_bytes
    generation = freeze(rig)
    fork(rig, generation, "beef")
    taken = sum(file.stat().st_blocks * 512 for file in generation.iterdir())
    assert taken <= wanted + 2 * MIB
    assert rig.storage.fill("beef", rig.vm_dir("beef")).used_bytes <= wanted + 2 * MIB


def test_fork_again_keeps_what_is_there(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    generation = freeze(rig)
    fork(rig, generation, "beef")
    write_file(rig.disk(rootfs, "beef"), "own", "kept\n")
    fork(rig, generation, "beef")
    assert read_file(rig.disk(rootfs, "beef"), "own") == "kept\n"


@pytest.mark.parametrize("point", range(3))
def test_fork_killed_anywhere_is_made_whole_by_the_next(rig: Rig, rootfs: Path, point: int) -> None:
    rig.create(rootfs)
    write_file(rig.disk(rootfs), "kept", "written\n")
    generation = freeze(rig)
    left, sync = point, files.sync_path

    def dying(path: Path) -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        sync(path)

    def die() -> None:
        files.sync_path = dying
        fork(rig, generation, "beef")

    assert forked(die) in ((-signal.SIGKILL,) if point < 2 else (-signal.SIGKILL, 0))
    fork(rig, generation, "beef")
    assert read_file(rig.disk(rootfs, "beef"), "kept") == "written\n"
    assert not list(rig.vm_dir("beef").glob("*.new"))
    rig.detach("beef")


def test_freeze_and_fork_without_room_say_so_and_leave_no_part(
    rig: Rig, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rig.create(rootfs)
    write_file(rig.disk(rootfs), "kept", "written\n")
    generation, into = freeze(rig), rig.layout.staging / "second"
    into.mkdir()
    for name in ("_copy_piece", "clone_blocks"):
        monkeypatch.setattr(copying, name, no_room)
    with pytest.raises(BangerError) as frozen:
        rig.storage.freeze("cafe", rig.vm_dir(), into, CancelToken())
    with pytest.raises(BangerError) as forked:
        fork(rig, generation, "beef")
    assert (frozen.value.kind, forked.value.kind) == (ErrorKind.EXHAUSTED, ErrorKind.EXHAUSTED)
    assert list(into.iterdir()) == []
    assert list(rig.vm_dir("beef").iterdir()) == []


def test_freeze_that_is_given_up_ends_and_leaves_no_part(rig: Rig, rootfs: Path) -> None:
    if rig.storage.name == "reflink":
        pytest.skip("a clone is one system call")
    rig.create(rootfs)
    into, token = rig.layout.staging / "generation", CancelToken()
    into.mkdir()
    token.cancel("nobody wants it")
    with pytest.raises(BangerError) as caught:
        rig.storage.freeze("cafe", rig.vm_dir(), into, token)
    assert caught.value.kind is ErrorKind.CANCELLED
    assert list(into.iterdir()) == []


def test_freeze_and_fork_of_what_is_not_there_say_so(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    rig.storage.remove(rig.vm_dir())
    with pytest.raises(BangerError) as frozen:
        freeze(rig)
    with pytest.raises(BangerError) as forked:
        fork(rig, rig.layout.staging / "generation", "beef")
    assert (frozen.value.kind, forked.value.kind) == (ErrorKind.NOT_FOUND, ErrorKind.NOT_FOUND)
    assert "snapshot" in forked.value.hint
