"""The order in which a snapshot is made and taken down, on a host of plain files: also when it dies half way."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB
from banger.host.cascade import run_all
from banger.layout import Layout
from banger.rootfs.resize import file_system_bytes
from banger.storage import snapshot
from banger.storage.device_mapper import failure
from banger.storage.device_names import DeviceNames, vm_of
from banger.storage.objects import StorageObjects
from banger.storage.snapshot import DmSnapshotStorage
from banger.storage.snapshot_format import SnapshotState
from tests.support.ext4_reader import needs_e2fsprogs
from tests.support.fake_mapper import Crash, FakeHost
from tests.support.storage import INSTALLATION, MemoryLedger, image, operation

pytestmark = needs_e2fsprogs

NAMES = DeviceNames(INSTALLATION, "cafe")


class Bench:
    def __init__(self, folder: Path) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(folder)})
        self.layout.make_directories()
        self.host = FakeHost(folder)
        self.ledger = MemoryLedger()
        self.storage = self.again()
        self.vm_dir = self.layout.vm_dir("cafe")
        self.vm_dir.mkdir()
        self.rootfs = image(folder / "rootfs.ext4", 16)
        self.storage.create(self.vm_dir, self.rootfs, 64, operation())

    def again(self) -> DmSnapshotStorage:
        """As after a restart."""
        return DmSnapshotStorage(INSTALLATION, 100, self.host.mapper, self.host)  # type: ignore[arg-type]

    def attach(self) -> Path:
        return self.storage.attach("cafe", self.vm_dir, self.rootfs, self.ledger)[0].path

    def detach(self) -> None:
        run_all(self.storage.detach("cafe", self.vm_dir, self.ledger), sleep=lambda _: None)

    def objects(self) -> StorageObjects:
        return StorageObjects(self.layout, INSTALLATION, self.host.mapper, self.host)  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_devices_are_made_from_below_and_removed_from_above(bench: Bench) -> None:
    bench.attach()
    bench.detach()
    assert bench.host.log == [
        f"loop {NAMES.image_loop} read-only",
        f"create {NAMES.origin}",
        f"loop {NAMES.changes_loop}",
        f"create {NAMES.snapshot}",
        f"remove {NAMES.snapshot}",
        f"remove {NAMES.origin}",
    ]  # the loop devices cleared themselves
    assert not bench.ledger.of()


def test_file_system_fills_the_disk_before_the_guest_sees_it(bench: Bench) -> None:
    assert file_system_bytes(bench.attach()) == 64 * MIB


@pytest.mark.parametrize("point", range(8))
def test_crash_while_it_is_made_leaves_only_what_the_ledger_knows(bench: Bench, point: int) -> None:
    bench.host.fuse = point
    ledger_before_cleanup = MemoryLedger()
    bench.ledger.strike = lambda *_: None  # type: ignore[method-assign]  # a dead process strikes nothing out
    with pytest.raises(Crash):
        bench.attach()
    bench.host.fuse = -1
    ledger_before_cleanup.rows.update(bench.ledger.rows)
    found = {(thing.kind, thing.key) for thing in bench.objects()()}
    assert found <= set(ledger_before_cleanup.rows)
    bench.storage = bench.again()
    run_all(bench.storage.detach("cafe", bench.vm_dir, ledger_before_cleanup))
    assert not bench.host.tables
    assert not bench.host.loops
    assert not ledger_before_cleanup.of()


def test_failure_while_it_is_made_takes_down_what_was_there_and_tells_why(bench: Bench) -> None:
    bench.host.answers[f"create {NAMES.snapshot}"] = (
        1, "device-mapper: reload ioctl on x (253:1) failed: No space left on device\nCommand failed."
    )  # fmt: skip
    with pytest.raises(BangerError, match="No space left") as caught:
        bench.attach()
    assert caught.value.subject == NAMES.snapshot
    assert not bench.host.tables
    assert not bench.host.loops
    assert not bench.ledger.of()


def test_device_in_use_keeps_all_below_it_and_their_rows(bench: Bench) -> None:
    bench.attach()
    bench.host.held.add(NAMES.snapshot)
    with pytest.raises(ExceptionGroup) as caught:
        bench.detach()
    assert [error.subject for error in caught.value.exceptions if isinstance(error, BangerError)] == [
        f"device {NAMES.snapshot}",
        f"device {NAMES.origin}",
        f"loop device {NAMES.changes_loop}",
        f"loop device {NAMES.image_loop}",
    ]
    assert all("still in the way" in str(error) for error in caught.value.exceptions[1:])
    assert len(bench.ledger.of()) == 4
    bench.host.held.clear()
    bench.detach()
    assert not bench.ledger.of()


def test_new_start_waits_for_a_leftover_that_udev_looks_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.attach()
    bench.host.held.add(NAMES.snapshot)
    patient = partial(run_all, sleep=lambda _: bench.host.held.discard(NAMES.snapshot))
    monkeypatch.setattr(snapshot, "run_all", patient)
    bench.attach()
    assert len(bench.host.tables) == 2


def test_device_that_is_busy_for_a_moment_is_tried_again(bench: Bench) -> None:
    bench.attach()
    bench.host.held.add(NAMES.snapshot)
    run_all(
        bench.storage.detach("cafe", bench.vm_dir, bench.ledger),
        sleep=lambda _: bench.host.held.discard(NAMES.snapshot),
    )
    assert not bench.ledger.of()


def test_snapshot_whose_changes_are_lost_does_not_start(bench: Bench) -> None:
    bench.host.answers["status"] = (0, "0 131072 snapshot Invalid")
    with pytest.raises(BangerError, match="is lost") as caught:
        bench.attach()
    assert caught.value.kind is ErrorKind.INVALID
    assert not bench.host.tables


def test_fill_is_the_kernels_word_while_attached(bench: Bench) -> None:
    bench.attach()
    assert bench.storage.fill("cafe", bench.vm_dir).used_bytes == 64 * 512
    bench.host.answers["status"] = (0, "0 131072 snapshot Overflow")
    assert bench.storage.fill("cafe", bench.vm_dir).failure == SnapshotState.OVERFLOW.value
    bench.detach()
    assert not bench.storage.fill("cafe", bench.vm_dir).failure


def test_detach_without_rows_touches_nothing(bench: Bench) -> None:
    assert bench.storage.detach("cafe", bench.vm_dir, bench.ledger) == ()
    assert bench.host.log == []


def test_leftovers_of_an_attempt_that_nobody_remembers_are_replaced(bench: Bench) -> None:
    bench.attach()
    bench.ledger.rows.clear()
    bench.attach()
    assert len(bench.host.tables) == 2
    bench.detach()
    assert not bench.host.tables


def test_hand_made_loop_on_a_file_of_ours_is_listed_and_others_are_not(bench: Bench) -> None:
    with (
        bench.host.attached(bench.vm_dir / "root.cow", "mine", read_only=True),
        bench.host.attached(Path("/elsewhere/disk"), "banger-ba9876543210-cafe-cow", read_only=True),
    ):
        (found,) = bench.objects()()
    assert (found.kind, found.vm_id) == ("loop", "cafe")
    assert "by hand" in found.reason


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("device-mapper: remove ioctl on x  failed: Device or resource busy\nCommand failed.", errno.EBUSY),
        ("Device x is in use\nCommand failed.", errno.EBUSY),
        ("device-mapper: remove ioctl on x  failed: No such device or address\nCommand failed.", errno.ENXIO),
        ("Device x not found\nCommand failed.", errno.ENXIO),
    ],
)
def test_words_of_dmsetup_become_what_the_cascade_understands(output: str, number: int) -> None:
    error = failure(output, "cannot remove", "x")
    assert isinstance(error, OSError)
    assert error.errno == number


def test_other_words_of_dmsetup_reach_the_user() -> None:
    error = failure("/dev/mapper/control: open failed: Permission denied\nFailure to communicate", "cannot make", "x")
    assert isinstance(error, BangerError)
    assert error.kind is ErrorKind.DENIED
    assert "Permission denied" in error.cause


def test_names_are_told_apart_by_installation() -> None:
    assert vm_of(NAMES.snapshot, INSTALLATION) == "cafe"
    assert vm_of(NAMES.snapshot, "ba9876543210") == ""
    assert vm_of("vg-root", INSTALLATION) == ""
    assert len(DeviceNames("0" * 12, "1" * 12).changes_loop) < 64


def test_fork_of_a_frozen_snapshot_has_its_changes_and_devices_of_its_own(bench: Bench) -> None:
    bench.attach()
    with (bench.vm_dir / "root.cow").open("r+b") as changes:
        changes.write(b"changed")
    generation, fork = bench.layout.staging / "generation", bench.layout.vm_dir("beef")
    for directory in (generation, fork):
        directory.mkdir()
    bench.storage.freeze("cafe", bench.vm_dir, generation, CancelToken())
    bench.storage.fork(generation, fork, operation())
    assert (fork / "root.cow").read_bytes() == (bench.vm_dir / "root.cow").read_bytes()
    bench.storage.attach("beef", fork, bench.rootfs, MemoryLedger("beef"))
    assert DeviceNames(INSTALLATION, "beef").snapshot in bench.host.tables


def test_freeze_of_a_snapshot_whose_changes_are_lost_says_so_and_copies_nothing(bench: Bench) -> None:
    bench.attach()
    bench.host.answers["status"] = (0, "0 131072 snapshot Invalid")
    generation = bench.layout.staging / "generation"
    generation.mkdir()
    with pytest.raises(BangerError) as caught:
        bench.storage.freeze("cafe", bench.vm_dir, generation, CancelToken())
    assert caught.value.kind is ErrorKind.INVALID
    assert list(generation.iterdir()) == []
