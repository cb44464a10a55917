"""What the owners rely on, whichever driver keeps a VM's disk: one suite for all.

``-k dm`` runs on any host with device-mapper and root: it needs nothing but e2fsprogs, dmsetup and util-linux.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB
from banger.host.cascade import run_all
from banger.rootfs.commit import commit_rootfs
from banger.rootfs.resize import file_system_bytes
from banger.storage.contents import contents_of
from banger.storage.device_names import DeviceNames
from banger.storage.objects import StorageObjects
from banger.storage.snapshot import DmSnapshotStorage
from banger.storage.snapshot_format import SnapshotState
from tests.support.ext4_reader import needs_e2fsprogs, run
from tests.support.forked import forked
from tests.support.storage import (
    DRIVERS,
    INSTALLATION,
    MemoryLedger,
    Rig,
    digest,
    driver_rig,
    image,
    operation,
    read_file,
    rig_of,
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


def test_guest_gets_the_drives_that_its_kind_of_root_wants(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    drives = rig.storage.attach("cafe", rig.vm_dir(), rootfs, rig.ledger)
    shape = [(drive.label, drive.read_only) for drive in drives]
    wanted = {"overlay": [("root", True), ("data", False)], "direct": [("root", False)]}
    assert shape == wanted[rig.storage.root]
    assert all(drive.path.exists() for drive in drives)


def test_disk_has_the_wished_size_and_a_clean_file_system(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs, size_mib=96)
    disk = rig.disk(rootfs)
    assert file_system_bytes(disk) == 96 * MIB
    run("e2fsck", "-fn", disk)


def test_root_of_its_own_holds_what_the_image_holds(rig: Rig, rootfs: Path) -> None:
    if rig.storage.root != "direct":
        pytest.skip("joined inside the guest")
    rig.create(rootfs)
    assert read_file(rig.disk(rootfs), "/etc/hostname") == "image\n"


def test_wish_smaller_than_the_image_gives_the_images_size(rig: Rig, rootfs: Path) -> None:
    if rig.storage.root != "direct":
        pytest.skip("a layer may be smaller than what is below")
    rig.create(rootfs, size_mib=8)
    assert file_system_bytes(rig.disk(rootfs)) == file_system_bytes(rootfs)


def test_what_is_written_stays_over_detach_and_attach(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    write_file(rig.disk(rootfs), "kept", "written\n")
    rig.detach()
    rig.create(rootfs)  # again, as a repeated request does
    assert read_file(rig.disk(rootfs), "kept") == "written\n"


def test_writing_changes_neither_the_image_nor_another_vm(rig: Rig, rootfs: Path) -> None:
    before = digest(rootfs)
    for vm_id in ("cafe", "beef"):
        rig.create(rootfs, vm_id=vm_id)
    first, second = rig.disk(rootfs), rig.disk(rootfs, "beef")
    write_file(first, "own", "first\n")
    assert read_file(second, "own") == ""
    for vm_id in ("cafe", "beef"):
        rig.detach(vm_id)
    assert digest(rootfs) == before


def test_attach_may_be_repeated(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    write_file(rig.disk(rootfs), "kept", "written\n")
    assert read_file(rig.disk(rootfs), "kept") == "written\n"
    rig.detach()
    assert StorageObjects(rig.layout, INSTALLATION)() == []


def test_detach_leaves_nothing_and_may_be_repeated(rig: Rig, rootfs: Path) -> None:
    look = StorageObjects(rig.layout, INSTALLATION)
    rig.create(rootfs)
    rig.disk(rootfs)
    steps = rig.storage.detach("cafe", rig.vm_dir(), rig.ledger)
    assert len({step.subject for step in steps}) == len(steps)
    run_all(steps)
    run_all(steps)
    assert rig.ledger.of() == []
    assert look() == []
    assert rig.storage.detach("cafe", rig.vm_dir(), rig.ledger) == ()


def test_everything_on_the_host_was_in_the_ledger_before_and_is_found_by_its_key(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    rig.disk(rootfs)
    found = {(thing.kind, thing.key) for thing in StorageObjects(rig.layout, INSTALLATION)()}
    assert found == {(handle.kind, handle.key) for handle in rig.ledger.of()}
    states = [(state, kind, key) for state, kind, key in rig.ledger.history if state != "struck"]
    for state, kind, key in states:
        if state == "active":
            assert states.index(("intended", kind, key)) < states.index((state, kind, key))


def test_host_objects_of_a_forgotten_vm_can_be_removed_one_by_one(rig: Rig, rootfs: Path) -> None:
    look = StorageObjects(rig.layout, INSTALLATION)
    rig.create(rootfs)
    rig.disk(rootfs)
    found = look()
    assert all(thing.vm_id == "cafe" and thing.since > 0 for thing in found)
    rig.clear()
    assert look() == []


def test_another_installation_sees_nothing_of_this_one(rig: Rig, rootfs: Path, tmp_path: Path) -> None:
    rig.create(rootfs)
    rig.disk(rootfs)
    other = type(rig.layout).from_environment({"BANGER_HOME": str(tmp_path / "other")})
    assert StorageObjects(other, "ba9876543210")() == []


def test_grown_disk_is_larger_and_keeps_what_is_on_it(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    write_file(rig.disk(rootfs), "kept", "written\n")
    rig.detach()
    rig.storage.grow(rig.vm_dir(), 160, operation())
    disk = rig.disk(rootfs)
    assert file_system_bytes(disk) == 160 * MIB
    assert read_file(disk, "kept") == "written\n"
    run("e2fsck", "-fn", disk)


def test_grow_to_the_same_size_is_success_and_to_a_smaller_one_is_refused(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    rig.storage.grow(rig.vm_dir(), 64, operation())
    with pytest.raises(BangerError, match="cannot be made smaller") as caught:
        rig.storage.grow(rig.vm_dir(), 48, operation())
    assert caught.value.kind is ErrorKind.USAGE
    assert file_system_bytes(rig.disk(rootfs)) == 64 * MIB


def test_disk_that_no_host_can_hold_is_refused_and_leaves_nothing(rig: Rig, rootfs: Path) -> None:
    with pytest.raises(BangerError) as caught:
        rig.create(rootfs, size_mib=1 << 40)
    assert caught.value.kind is ErrorKind.EXHAUSTED
    rig.storage.remove(rig.vm_dir())
    assert list(rig.vm_dir().iterdir()) == []


def test_attach_of_a_disk_that_somebody_removed_says_so(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    rig.storage.remove(rig.vm_dir())
    with pytest.raises(BangerError) as caught:
        rig.disk(rootfs)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert caught.value.hint


def test_create_from_an_image_that_is_gone_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    if rig.storage.root == "direct":
        with pytest.raises(BangerError) as caught:
            rig.create(tmp_path / "gone.ext4")
        assert caught.value.kind is ErrorKind.NOT_FOUND
        assert list(rig.vm_dir().iterdir()) == []


def test_remove_deletes_everything_and_may_be_repeated(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    for _ in range(2):
        rig.storage.remove(rig.vm_dir())
        assert list(rig.vm_dir().iterdir()) == []


def test_fill_grows_with_what_is_written(rig: Rig, rootfs: Path) -> None:
    rig.create(rootfs)
    disk = rig.disk(rootfs)
    before = rig.storage.fill("cafe", rig.vm_dir())
    write_file(disk, "large", "x" * (4 * MIB))
    after = rig.storage.fill("cafe", rig.vm_dir())
    assert 3 * MIB < after.used_bytes - before.used_bytes < 16 * MIB
    assert after.used_bytes <= after.total_bytes
    assert not after.failure
    rig.detach()
    assert rig.storage.fill("cafe", rig.vm_dir()).used_bytes > 3 * MIB
    rig.storage.remove(rig.vm_dir())
    assert rig.storage.fill("cafe", rig.vm_dir()).used_bytes == 0


def test_commit_of_a_whole_root_holds_what_the_vm_wrote_and_none_of_its_secrets(rig: Rig, rootfs: Path) -> None:
    if rig.storage.root != "direct":
        pytest.skip("has a suite of its own")
    rig.create(rootfs)
    disk = rig.disk(rootfs)
    for name, text in (("own", "written\n"), ("large", "x" * MIB), (".bash_history", "secret\n")):
        write_file(disk, name, text)
    run("debugfs", "-w", "-R", "rm etc/hostname", disk)
    write_file(disk, "etc/hostname", "web\n")
    rig.detach()
    target = rig.layout.staging / "rootfs.ext4"
    found = contents_of(rig.vm_dir(), rootfs)
    commit_rootfs(rootfs, found.path, target, copy=found.copy, operation=operation(), whole=found.whole)
    assert read_file(target, "own") == "written\n"
    assert read_file(target, "large") == "x" * MIB
    assert read_file(target, ".bash_history") == ""
    assert read_file(target, "etc/hostname") == "image\n"
    run("e2fsck", "-fn", target)
    assert list(rig.layout.staging.iterdir()) == [target]


# -- what only device-mapper can do --------------------------------------------------------------------


@pytest.fixture
def dm(tmp_path: Path) -> Iterator[Rig]:
    with rig_of("dm-snapshot", tmp_path) as rig:
        yield rig


@pytest.fixture
def base(dm: Rig) -> Path:
    return image(dm.layout.data / "images" / "rootfs.ext4")


def test_dm_changes_merged_without_devices_are_what_the_device_showed(dm: Rig, base: Path) -> None:
    dm.create(base, size_mib=96)
    disk = dm.disk(base)
    write_file(disk, "first", "1" * (6 * MIB))
    run("debugfs", "-w", "-R", "rm first", disk)
    write_file(disk, "second", "2" * (3 * MIB))
    shown = digest(disk)
    dm.detach()
    merged = dm.layout.staging / "merged"
    found = contents_of(dm.vm_dir(), base)
    found.copy(found.path, merged, operation())
    assert digest(merged) == shown


def test_dm_snapshot_in_use_is_neither_taken_down_nor_made_anew(dm: Rig, base: Path) -> None:
    dm.create(base)
    with dm.disk(base).open("rb"):
        with pytest.raises(BangerError) as caught:
            dm.disk(base)
        assert caught.value.kind is ErrorKind.CONFLICT
        steps = dm.storage.detach("cafe", dm.vm_dir(), dm.ledger)
        with pytest.raises(ExceptionGroup) as failures:
            run_all(steps, sleep=lambda _: None)
        assert len(failures.value.exceptions) == len(steps)
        assert len(dm.ledger.of()) == len(steps)
    dm.detach()
    assert dm.ledger.of() == []


def test_dm_snapshot_with_less_room_overflows_says_so_and_goes_on_when_it_is_larger(dm: Rig, base: Path) -> None:
    tight = Rig(DmSnapshotStorage(INSTALLATION, percent=10), dm.layout)
    tight.create(base, size_mib=64)
    disk = tight.disk(base)
    write_file(disk, "kept", "written\n")
    before = tight.storage.fill("cafe", tight.vm_dir())
    assert before.can_overflow
    assert before.total_bytes < 10 * MIB
    descriptor = os.open(disk, os.O_WRONLY | os.O_SYNC)
    with pytest.raises(OSError, match="error"):
        os.pwritev(descriptor, [os.urandom(20 * MIB)], 40 * MIB)
    os.close(descriptor)
    assert tight.storage.fill("cafe", tight.vm_dir()).failure == SnapshotState.OVERFLOW.value
    tight.detach()
    tight.storage.grow(tight.vm_dir(), 640, operation())
    disk = tight.disk(base)
    assert tight.storage.fill("cafe", tight.vm_dir()).failure == ""
    assert read_file(disk, "kept") == "written\n"
    tight.detach()


@pytest.mark.parametrize("point", range(9))
def test_dm_attach_killed_anywhere_leaves_what_the_ledger_finds(dm: Rig, base: Path, point: int) -> None:
    """A process of its own dies between two writes to the ledger; another takes down what it left."""
    dm.create(base, size_mib=96)
    told = dm.layout.data / "told"

    class Dying(MemoryLedger):
        left = point

        def _put(self, *row: Any) -> None:
            if not Dying.left:
                os.kill(os.getpid(), signal.SIGKILL)
            Dying.left -= 1
            super()._put(*row)
            with told.open("a", encoding="utf-8") as file:
                print(row[1], row[2], file=file)

    storage = DmSnapshotStorage(INSTALLATION)
    code = forked(lambda: storage.attach("cafe", dm.vm_dir(), base, Dying()))
    assert code == (-signal.SIGKILL if point < 8 else 0)
    ledger = MemoryLedger()
    for line in told.read_text().splitlines() if point else ():
        ledger.intend(*line.split())
    known = {handle.key for handle in ledger.of()}
    assert {thing.key for thing in StorageObjects(dm.layout, INSTALLATION)()} <= known
    run_all(dm.storage.detach("cafe", dm.vm_dir(), ledger))
    assert StorageObjects(dm.layout, INSTALLATION)() == []
    assert ledger.of() == []
    assert file_system_bytes(dm.disk(base)) == 96 * MIB


def test_dm_names_tell_installation_and_vm(dm: Rig, base: Path) -> None:
    dm.create(base)
    dm.disk(base)
    names = DeviceNames(INSTALLATION, "cafe")
    found = {thing.key for thing in StorageObjects(dm.layout, INSTALLATION)()}
    assert found == {names.snapshot, names.origin, names.image_loop, names.changes_loop}
