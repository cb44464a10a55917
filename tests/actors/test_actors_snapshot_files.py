"""Snapshots as files over fake machines: taken in again, or refused before anything is made."""

from __future__ import annotations

import pytest

from banger.actors.messages import DeleteImage, DeleteKernel, DeleteVm, ExportSnapshot, ImportSnapshot
from banger.core.errors import BangerError, ErrorKind
from tests.support.owned_vms import create
from tests.support.saved_vms import copied_guests, delete_snapshot, read, restore, rewind, snapshot, write


@pytest.fixture
def world(vm_world):
    copied_guests(vm_world)
    yield vm_world
    for vm in vm_world.store.vms.all():
        vm_world.do(DeleteVm(vm.id, vm.name, force=True))
    for taken in vm_world.store.snapshots.all():
        delete_snapshot(vm_world, taken)


@pytest.fixture
def vm(world):
    """A running VM with something in its memory and on its disk."""
    vm = create(world, start=True)
    write(world, vm, "first")
    return vm


def test_exported_snapshot_is_imported_and_goes_on(world, vm, tmp_path):
    taken, file = snapshot(world, vm), tmp_path / "file"
    done = world.do(ExportSnapshot("snap", taken.id, str(file)))
    assert (done["path"], done["size_bytes"]) == (str(file), file.stat().st_size)
    delete_snapshot(world, taken)

    again = world.do(ImportSnapshot("other", str(file)))

    assert (again.id != taken.id, again.name, again.vm_id) == (True, "other", vm.id)
    assert (again.created_at, again.spec, again.memory_mib) == (taken.created_at, taken.spec, taken.memory_mib)
    assert read(world, restore(world, again, "again")) == ("first", "first")
    write(world, vm, "later")
    assert read(world, rewind(world, vm)) == ("first", "first")
    assert world.leftovers() == []


def test_import_without_its_image_or_kernel_says_which_and_how_to_get_it(world, vm, tmp_path):
    taken, file = snapshot(world, vm), tmp_path / "file"
    world.do(ExportSnapshot("snap", taken.id, str(file)))
    delete_snapshot(world, taken)
    world.do(DeleteVm(vm.id, "web", force=True))
    [image], [kernel] = world.store.images.all(), world.store.kernels.all()
    for command, noun, name in (
        (DeleteKernel(kernel.name, kernel.id), "kernel", "default"),
        (DeleteImage(image.name, image.id), "image", "alpine"),
    ):
        world.do(command)
        with pytest.raises(BangerError) as caught:
            world.do(ImportSnapshot("snap", str(file)))
        assert (caught.value.kind, caught.value.hint) == (ErrorKind.NOT_FOUND, f"banger {noun} pull {name}")
    assert world.store.snapshots.all() == []
    assert world.leftovers() == []


def test_import_over_an_image_of_other_bytes_is_refused(world, vm, tmp_path):
    taken, file = snapshot(world, vm), tmp_path / "file"
    world.do(ExportSnapshot("snap", taken.id, str(file)))
    [image] = world.store.images.all()
    rootfs = world.layout.image_rootfs(image)
    rootfs.write_text("made anew")
    with pytest.raises(BangerError, match="very same bytes") as caught:
        world.do(ImportSnapshot("other", str(file)))
    assert "bundle-file:" in caught.value.hint
    assert [one.name for one in world.store.snapshots.all()] == ["snap"]


def test_import_under_a_taken_name_and_of_what_is_none_is_refused(world, vm, tmp_path):
    taken, file = snapshot(world, vm), tmp_path / "file"
    world.do(ExportSnapshot("snap", taken.id, str(file)))
    with pytest.raises(BangerError) as caught:
        world.do(ImportSnapshot("snap", str(file)))
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    file.write_text("nothing")
    with pytest.raises(BangerError) as caught:
        world.do(ImportSnapshot("other", str(file)))
    assert caught.value.kind is ErrorKind.INVALID
    assert world.leftovers() == []
