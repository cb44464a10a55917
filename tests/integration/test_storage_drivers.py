"""Which driver new VMs get, what the probes say, and loop devices that clear themselves."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.progress import EventKind, OperationEvent
from banger.layout import Layout
from banger.storage.drivers import all_drivers, choose, survey, why_no_snapshot
from banger.storage.full_copy import CopyStorage, ReflinkStorage, why_no_reflink
from banger.storage.loop_devices import LoopDevices
from tests.support.fake_mapper import FakeHost
from tests.support.storage import INSTALLATION, cloning_file_system, config, image, operation, why_no_cloning

needs_loops = [
    pytest.mark.root,
    pytest.mark.skipif(not os.access("/dev/loop-control", os.W_OK), reason="this host gives no loop devices"),
]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    layout.make_directories()
    return layout


def test_auto_is_overlay_and_every_driver_is_found_by_its_name(layout: Layout) -> None:
    drivers = all_drivers(config(), INSTALLATION)
    assert {name: driver.name for name, driver in drivers.items()} == {name: name for name in drivers}
    assert choose(drivers, layout, config()).name == "overlay"
    assert choose(drivers, layout, config(storage__driver="copy")).name == "copy"


def test_driver_that_does_not_work_here_is_refused_with_the_reason(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    settings = config(storage__driver="dm-snapshot")
    with pytest.raises(BangerError, match="takes root") as caught:
        choose(all_drivers(settings, INSTALLATION), layout, settings)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "dmsetup" in caught.value.hint


def test_survey_gives_a_reason_for_each_that_does_not_work_and_leaves_nothing(layout: Layout) -> None:
    before = sorted(layout.data.rglob("*"))
    found = list(survey(layout))
    assert [one.name for one in found] == ["overlay", "reflink", "dm-snapshot", "copy"]
    assert all(one.works != bool(one.reason) for one in found)
    assert all(bool(one.reason) == bool(one.hint) for one in found)
    assert sorted(layout.data.rglob("*")) == before


def test_probe_of_snapshots_makes_one_and_removes_all_of_it(tmp_path: Path) -> None:
    host, place = FakeHost(tmp_path / "host"), tmp_path / "place"
    host.root.mkdir()
    place.mkdir()
    assert why_no_snapshot(place, host.mapper, host, uid=0) == ""  # type: ignore[arg-type]
    assert [line.split()[0] for line in host.log] == ["loop", "loop", "create", "create", "remove", "remove"]
    assert not host.tables
    assert not host.loops
    assert list(place.iterdir()) == []


def test_probe_of_snapshots_tells_the_kernels_reason_and_removes_what_it_made(tmp_path: Path) -> None:
    host, place = FakeHost(tmp_path / "host"), tmp_path / "place"
    host.root.mkdir()
    place.mkdir()
    calls: list[str] = []

    def second_fails(arguments: list[str], stdin: str) -> tuple[int, str]:
        calls.append(arguments[0])
        if calls.count("create") == 2 and arguments[0] == "create":
            return 1, "device-mapper: reload ioctl failed: Invalid argument\nCommand failed."
        return FakeHost.dmsetup(host, arguments, stdin)

    host.dmsetup = second_fails  # type: ignore[method-assign]
    assert "Invalid argument" in why_no_snapshot(place, host.mapper, host, uid=0)  # type: ignore[arg-type]
    assert not host.tables
    assert list(place.iterdir()) == []


@pytest.mark.skipif(bool(why_no_cloning()), reason=why_no_cloning() or "-")
def test_clone_shares_blocks_where_it_can_and_copies_from_elsewhere_with_a_note(tmp_path: Path) -> None:
    with cloning_file_system(tmp_path) as mount:
        assert why_no_reflink(mount) == ""
        near, far, vm_dir = image(mount / "near.ext4"), image(tmp_path / "far.ext4"), mount / "vm"
        vm_dir.mkdir()
        for source, notes in ((near, 0), (far, 1)):
            op, events = operation(), list[OperationEvent]()
            op.subscribe(events.append)
            ReflinkStorage().create(vm_dir, source, 32, op)
            assert [event.kind for event in events].count(EventKind.NOTE) == notes
            ReflinkStorage().remove(vm_dir)


def test_copy_that_cannot_fit_is_refused_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
    rootfs = image(tmp_path / "image")
    with pytest.raises(BangerError, match="KiB free") as caught:
        CopyStorage().create(tmp_path, rootfs, 64, operation())
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_file_system_that_cannot_clone_says_so(tmp_path: Path) -> None:
    if not why_no_reflink(tmp_path):
        pytest.skip("this one can")
    with pytest.raises(BangerError, match="cannot share blocks") as caught:
        ReflinkStorage().create(tmp_path, image(tmp_path / "image"), 64, operation())
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


class TestLoopDevices:
    pytestmark = needs_loops

    def test_device_shows_its_file_by_name_and_clears_itself(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"x" * 4096)
        loops = LoopDevices()
        with loops.attached(file, "banger-test-one", read_only=True) as path:
            (found,) = loops.named("banger-test-one")
            assert (found.path, found.file) == (path, str(file))
            assert path.read_bytes() == b"x" * 4096
            descriptor = os.open(path, os.O_WRONLY)
            with pytest.raises(PermissionError):
                os.write(descriptor, b"y" * 512)
            os.close(descriptor)
        assert loops.named("banger-test-one") == []

    def test_device_in_use_is_busy_and_clears_itself_after_that(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(bytes(4096))
        loops = LoopDevices()
        with loops.attached(file, "banger-test-two", read_only=False):
            (found,) = loops.named("banger-test-two")
            with pytest.raises(OSError, match="in use"):
                loops.clear(found)
        loops.clear(found)
        assert loops.named("banger-test-two") == []

    def test_file_that_is_not_there_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        with (
            pytest.raises(BangerError, match="gone"),
            LoopDevices().attached(tmp_path / "gone", "banger-test-three", read_only=True),
        ):
            pass
