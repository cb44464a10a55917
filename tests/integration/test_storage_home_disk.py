"""Home disks: made of an image's seed, one VM's at a time, kept or deleted with it."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Vm, VmState
from banger.core.units import MIB
from banger.core.wire.vm_spec import VmSpec
from banger.host.cascade import run_all
from banger.layout import Layout
from banger.rootfs.resize import file_system_bytes
from banger.storage.home_disk import HomeDisk
from tests.support.ext4_reader import needs_e2fsprogs, run
from tests.support.storage import MemoryLedger, config, image, operation, read_file, write_file

pytestmark = needs_e2fsprogs

IMAGE = Image("img", "debian", "s", "d", "linux/amd64", 1, 1, datetime(2026, 1, 1, tzinfo=UTC), has_seed=True)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    layout.make_directories()
    layout.image_dir("img").mkdir()
    image(layout.image_seed(IMAGE), 16, dotfile="of the image\n")
    return layout


@pytest.fixture
def homes(layout: Layout) -> HomeDisk:
    return HomeDisk(layout, config(vm__home_mib=48))


def vm(layout: Layout, vm_id: str, home: str = "work", **spec: object) -> Vm:
    layout.vm_dir(vm_id).mkdir(exist_ok=True)
    wish = replace(VmSpec("debian", home=home), **spec)  # type: ignore[arg-type]
    return Vm(vm_id, vm_id, wish, VmState.STOPPED, datetime(2026, 1, 1, tzinfo=UTC))


def prepare(homes: HomeDisk, one: Vm, image: Image = IMAGE) -> Path:
    """The disk, as a start gets it."""
    given = homes.prepare(one, image, MemoryLedger(one.id), operation())
    assert [(mount.label, mount.path) for mount in given.mounts] == [("home", "/root")]
    (drive,) = given.devices
    assert (drive.label, drive.read_only) == ("home", False)
    return drive.path


def kind_of(run, *arguments: object) -> ErrorKind:  # type: ignore[no-untyped-def]
    with pytest.raises(BangerError) as caught:
        run(*arguments)
    assert caught.value.hint
    return caught.value.kind


def test_new_home_holds_the_seed_at_the_configured_size(homes: HomeDisk, layout: Layout) -> None:
    disk = prepare(homes, vm(layout, "one"))
    assert read_file(disk, "dotfile") == "of the image\n"
    assert file_system_bytes(disk) == 48 * MIB
    run("e2fsck", "-fn", disk)
    assert read_file(layout.image_seed(IMAGE), "dotfile") == "of the image\n"


def test_image_without_a_seed_gives_an_empty_home_that_is_private(homes: HomeDisk, layout: Layout) -> None:
    disk = prepare(homes, vm(layout, "one"), replace(IMAGE, id="bare"))
    assert file_system_bytes(disk) == 48 * MIB
    assert "Mode:  0700" in run("debugfs", "-R", "stat /", disk)


def test_second_start_keeps_what_is_there_and_may_make_it_larger(homes: HomeDisk, layout: Layout) -> None:
    write_file(prepare(homes, vm(layout, "one")), "kept", "mine\n")
    disk = prepare(homes, vm(layout, "one", home_mib=96))
    assert read_file(disk, "kept") == "mine\n"
    assert file_system_bytes(disk) == 96 * MIB
    assert file_system_bytes(prepare(homes, vm(layout, "one", home_mib=16))) == 96 * MIB


def test_home_of_one_vm_is_refused_to_another(homes: HomeDisk, layout: Layout) -> None:
    prepare(homes, vm(layout, "one"))
    ledger = MemoryLedger("two")
    assert kind_of(homes.prepare, vm(layout, "two"), IMAGE, ledger, operation()) is ErrorKind.CONFLICT
    assert ledger.history == []


def test_kept_home_goes_on_to_the_next_vm(homes: HomeDisk, layout: Layout) -> None:
    first = vm(layout, "one")
    write_file(prepare(homes, first), "kept", "mine\n")
    homes.started(first, MemoryLedger("one"))
    for _ in range(2):
        homes.release(first, keep=True)
    assert [(home.name, home.vm_id) for home in homes.homes()] == [("work", "")]
    assert read_file(prepare(homes, vm(layout, "two")), "kept") == "mine\n"
    homes.release(first, keep=False)  # it is not its own any more
    assert homes.path("work").exists()


def test_home_that_no_guest_ever_had_is_not_kept(homes: HomeDisk, layout: Layout) -> None:
    """A start that failed made it; there is nothing of anybody's in it."""
    one = vm(layout, "one")
    prepare(homes, one)
    homes.release(one, keep=True)
    assert list(layout.homes.iterdir()) == []


def test_home_of_an_earlier_vm_survives_a_later_one_that_never_came_up(homes: HomeDisk, layout: Layout) -> None:
    first, second = vm(layout, "one"), vm(layout, "two")
    prepare(homes, first)
    homes.started(first, MemoryLedger("one"))
    homes.release(first, keep=True)
    prepare(homes, second)
    homes.erase(second)
    assert [(home.name, home.vm_id) for home in homes.homes()] == [("work", "")]
    assert homes.path("work").exists()


def test_home_that_is_not_kept_is_deleted(homes: HomeDisk, layout: Layout) -> None:
    one = vm(layout, "one")
    prepare(homes, one)
    for _ in range(2):
        homes.release(one, keep=False)
    assert list(layout.homes.iterdir()) == []


def test_home_of_a_vm_that_is_gone_may_be_taken(homes: HomeDisk, layout: Layout) -> None:
    prepare(homes, vm(layout, "one"))
    layout.vm_dir("one").rmdir()  # died between deleting its files and releasing its home
    prepare(homes, vm(layout, "two"))


def test_home_of_another_user_is_refused(homes: HomeDisk, layout: Layout) -> None:
    first = vm(layout, "one")
    prepare(homes, first)
    homes.started(first, MemoryLedger("one"))
    homes.release(first, keep=True)
    assert kind_of(homes.claim, replace(vm(layout, "two"), owner_uid=1000)) is ErrorKind.DENIED


@pytest.mark.parametrize("name", ["../x", "A", "a/b", "", "x" * 41, "a.json"])
def test_name_that_is_none_is_refused(homes: HomeDisk, layout: Layout, name: str) -> None:
    assert kind_of(homes.path, name) is ErrorKind.USAGE


def test_ledger_knows_of_the_home_before_it_is_made_and_until_cleanup(homes: HomeDisk, layout: Layout) -> None:
    one, ledger = vm(layout, "one"), MemoryLedger("one")
    homes.prepare(one, IMAGE, ledger, operation())
    assert ledger.history == [("intended", "home", "work"), ("active", "home", "work")]
    run_all(homes.cleanup(one, ledger))
    run_all(homes.cleanup(one, ledger))
    assert ledger.of() == []
    assert homes.path("work").exists()


def test_home_for_which_there_is_no_room_leaves_no_half_of_it(homes: HomeDisk, layout: Layout) -> None:
    one = vm(layout, "one", home_mib=1 << 40)
    assert kind_of(homes.prepare, one, IMAGE, MemoryLedger(), operation()) is ErrorKind.EXHAUSTED
    assert [path.name for path in layout.homes.iterdir()] == ["work.json"]
    homes.release(one, keep=True)
    assert list(layout.homes.iterdir()) == []


def test_of_many_that_want_one_home_exactly_one_gets_it(homes: HomeDisk, layout: Layout) -> None:
    got: list[str] = []
    wanting = [vm(layout, f"vm{number}") for number in range(8)]
    start = threading.Barrier(len(wanting))

    def claim(one: Vm) -> None:
        start.wait()
        try:
            homes.claim(one)
            got.append(one.id)
        except BangerError as error:
            assert error.kind is ErrorKind.CONFLICT

    threads = [threading.Thread(target=claim, args=(one,)) for one in wanting]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_kept_homes_are_no_leaks(homes: HomeDisk, layout: Layout) -> None:
    one = vm(layout, "one")
    prepare(homes, one)
    homes.release(one, keep=True)
    assert homes.host_objects() == ()


def test_disk_whose_record_was_lost_outlives_a_start_that_fails(homes: HomeDisk, layout: Layout) -> None:
    one = vm(layout, "one")
    write_file(prepare(homes, one), "kept", "mine\n")
    homes.started(one, MemoryLedger())
    homes.release(one, keep=True)
    (layout.homes / "work.json").unlink()  # as the hint for a damaged one says
    two = vm(layout, "two")
    homes.claim(two)
    homes.release(two, keep=True)  # what undoing its creation does
    assert read_file(homes.path("work"), "kept") == "mine\n"
    assert [(home.name, home.vm_id) for home in homes.homes()] == [("work", "")]


def test_vm_that_wished_for_an_impossible_home_has_none_to_let_go_of(homes: HomeDisk, layout: Layout) -> None:
    homes.release(vm(layout, "one", home="../x"), keep=False)


def test_damaged_record_does_not_hide_the_other_homes(homes: HomeDisk, layout: Layout) -> None:
    prepare(homes, vm(layout, "one"))
    (layout.homes / "torn.json").write_text("{")
    assert [(home.name, bool(home.broken)) for home in homes.homes()] == [("torn", True), ("work", False)]
