"""Images from this host: register, promote, tag, commit, export, prune; and the races between them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banger.actors.messages import (
    CommitVm,
    CreateVm,
    DeleteImage,
    DeleteVm,
    ExportImage,
    PromoteImage,
    Prune,
    PullImage,
    PullKernel,
    PushImage,
    RegisterImage,
    TagImage,
)
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.core.names import new_id
from banger.core.ports import ImageRequest, KernelRequest, PushRequest
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.waiting import eventually


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "home", FakeVmm())
    yield world
    world.images.gate.open()
    world.image_tools.gate.open()
    assert world.leftovers() == []
    world.stop()


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.ext4"
    file.write_text("sha256:own")
    return file


def failure_of(call) -> BangerError:
    with pytest.raises(BangerError) as caught:
        call()
    return caught.value


def pull(world, name="alpine"):
    return world.do(PullImage(name, ImageRequest(name), refresh=True))


# -- register and promote --------------------------------------------------------------------------------


def test_register_leaves_the_users_file_where_it_is(world, own):
    image = world.do(RegisterImage("mine", str(own)))

    assert not image.managed
    assert world.layout.image_rootfs(image) == own
    world.do(DeleteImage("mine", image.id))
    assert own.read_text() == "sha256:own"


def test_register_of_a_file_that_is_not_clean_makes_nothing(world, own):
    own.write_text("broken")

    assert failure_of(lambda: world.do(RegisterImage("mine", str(own)))).kind is ErrorKind.INVALID
    assert world.store.images.all() == []


def test_register_of_a_taken_name_is_refused(world, own):
    pull(world, "mine")

    assert failure_of(lambda: world.do(RegisterImage("mine", str(own)))).kind is ErrorKind.ALREADY_EXISTS


def test_register_and_pull_racing_for_a_name_have_one_winner(world, own):
    world.images.gate.close()
    pulling = world.supervisor.submit(PullImage("mine", ImageRequest("mine"), refresh=True))
    world.images.gate.wait_reached()
    registering = world.supervisor.submit(RegisterImage("mine", str(own)))
    world.images.gate.open()

    assert pulling.wait().managed
    assert failure_of(registering.wait).kind is ErrorKind.ALREADY_EXISTS


def test_pull_over_a_registered_name_is_refused(world, own):
    world.do(RegisterImage("mine", str(own)))

    assert failure_of(lambda: pull(world, "mine")).kind is ErrorKind.ALREADY_EXISTS
    assert world.images.builds == []


def test_promote_copies_into_the_store_with_a_seed_and_keeps_the_name(world, own):
    world.do(RegisterImage("mine", str(own), kernel="edge"))

    image = world.do(PromoteImage("mine"))

    assert image.managed
    assert image.kernel == "edge"
    assert world.layout.image_rootfs(image).read_text() == "sha256:own"
    assert world.layout.image_seed(image).read_text() == "seed"
    assert own.exists()
    assert [found.id for found in world.store.images.all()] == [image.id]


def test_promote_that_is_cancelled_leaves_the_registered_image(world, own):
    before = world.do(RegisterImage("mine", str(own)))
    world.image_tools.gate.close()
    waiter = world.supervisor.submit(PromoteImage("mine"))
    world.image_tools.gate.wait_reached()

    waiter.leave()

    eventually(lambda: not world.operations.active(), what="it ends")
    assert world.store.images.by_name("mine") == before


def test_promote_keeps_the_old_file_for_vms_that_boot_it(world, own):
    before = world.do(RegisterImage("mine", str(own)))
    world.do(CreateVm(new_id(), "user", VmSpec("mine")))

    after = world.do(PromoteImage("mine"))

    assert world.store.images.get(before.id).rootfs_path == str(own)
    assert world.store.images.by_name("mine").id == after.id


# -- tag, commit, export ---------------------------------------------------------------------------------


def test_tag_shares_the_content_and_survives_the_other_names_end(world):
    image = pull(world)

    alias = world.do(TagImage("alias", image.id))
    world.do(DeleteImage("alpine", image.id))

    assert world.layout.image_rootfs(alias).read_text() == image.digest
    assert failure_of(lambda: world.do(TagImage("other", image.id))).kind is ErrorKind.NOT_FOUND


def test_tag_of_a_name_with_other_content_is_refused(world):
    image = pull(world)
    pull(world, "debian")

    assert failure_of(lambda: world.do(TagImage("debian", image.id))).kind is ErrorKind.ALREADY_EXISTS
    assert world.do(TagImage("alpine", image.id)) == image


def test_commit_makes_an_image_of_a_stopped_vm_and_refuses_a_running_one(world):
    vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine")))

    image = world.do(CommitVm("mine", vm.id))

    assert image.source == "commit:web"
    assert world.layout.image_rootfs(image).read_text() == "commit of sha256:alpine"
    world.store.vms.update(replace(vm, state=VmState.RUNNING))
    assert failure_of(lambda: world.do(CommitVm("again", vm.id))).kind is ErrorKind.CONFLICT
    world.store.vms.update(vm)


def test_export_and_push_take_their_turn_behind_a_delete(world, tmp_path):
    image = pull(world)

    assert world.do(ExportImage("alpine", image.id, str(tmp_path / "out"), "bundle"))["size_bytes"] > 0
    assert world.do(PushImage("alpine", image.id, PushRequest("r/x:1")))["digest"] == "sha256:alpine"
    world.do(DeleteImage("alpine", image.id))
    late = ExportImage("alpine", image.id, str(tmp_path / "late"), "bundle")
    assert failure_of(lambda: world.do(late)).kind is ErrorKind.NOT_FOUND


# -- delete and prune ------------------------------------------------------------------------------------


def test_delete_by_force_takes_the_name_and_leaves_the_content_to_its_vms(world):
    image = pull(world)
    vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine")))

    world.do(DeleteImage("alpine", image.id, force=True))

    assert world.store.images.by_name("alpine") is None
    assert world.layout.image_rootfs(image).exists()
    world.do(DeleteVm(vm.id, "web"))
    world.do(Prune())
    assert world.store.images.all() == []


def test_prune_dry_run_says_what_prune_then_does(world):
    pull(world)
    world.do(PullKernel("default", KernelRequest(source="default")))
    world.do(CreateVm(new_id(), "web", VmSpec("debian", "default")))

    planned = world.do(Prune(unused=True, dry_run=True))
    assert len(world.store.images.all()) == 2
    done = world.do(Prune(unused=True))

    assert planned.removed == done.removed == ["image alpine"]
    assert [image.name for image in world.store.images.all()] == ["debian"]
    assert [kernel.name for kernel in world.store.kernels.all()] == ["default"]


def test_prune_spares_registered_images_and_named_ones(world, own):
    pull(world)
    world.do(RegisterImage("mine", str(own)))

    assert world.do(Prune()).removed == []
    assert world.do(Prune(unused=True)).removed == ["image alpine"]
    assert own.exists()
