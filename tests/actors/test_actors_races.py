"""Races between owners and between commands, each forced: what interferes does so at a named instant of the other."""

from __future__ import annotations

import random
import sqlite3

import pytest

from banger.actors.messages import (
    CreateVm,
    DeleteImage,
    DeleteKernel,
    DeleteVm,
    PullImage,
    PullKernel,
    RegisterImage,
)
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import new_id
from banger.core.ports import ImageRequest, KernelRequest
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.interleaving import Interleaving
from tests.support.soak import IS_SOAK
from tests.support.waiting import eventually

#: Rounds of the random interleavings, in `make test` and in `make soak`.
ROUNDS = 200 if IS_SOAK else 30


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "home", FakeVmm())
    yield world
    for gate in (world.images.gate, world.image_tools.gate, world.kernels.gate):
        gate.open()
    eventually(lambda: not world.operations.active(), what="all is done")
    assert world.leftovers() == []
    world.stop()


@pytest.fixture
def points(world, monkeypatch):
    return Interleaving(monkeypatch)


def pull(name="alpine"):
    return PullImage(name, ImageRequest(name), refresh=True)


def outcome(waiter):
    try:
        return waiter.wait()
    except BangerError as error:
        assert error.kind is not ErrorKind.INTERNAL, error
        return error


# -- kernel delete and kernel pull -----------------------------------------------------------------------


def kernel_is_whole(world):
    for kernel in world.store.kernels.all():
        assert (world.layout.kernel_dir(kernel.id) / "kernel.json").exists()
    assert world.leftovers() == []


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_kernel_delete_and_pull_are_never_half_done(world, points, seed):
    """Commands, and callers who leave, at random instants of one another: one mailbox puts them in some order."""
    chance = random.Random(seed)
    request = KernelRequest(source="default")
    world.do(PullKernel("default", request))
    waiters = []

    def submit(command):
        waiters.append(world.supervisor.submit(command))

    def delete():
        kernel = world.store.kernels.by_name("default")
        if kernel is not None:
            submit(DeleteKernel("default", kernel.id))

    def leave():
        if waiters:  # the first may come by its points before this thread has noted it
            chance.choice(waiters).leave()

    deeds = [delete, delete, lambda: submit(PullKernel("default", request, refresh=True))]
    deeds += [lambda: submit(PullKernel("default", request)), leave]
    chance.shuffle(deeds)
    for instant, deed in zip(sorted(chance.randint(1, 25) for _ in deeds), deeds, strict=True):
        points.after(instant, deed)

    submit(
        chance.choice(
            [DeleteKernel("default", world.store.kernels.by_name("default").id), PullKernel("default", request, True)]
        )
    )
    for waiter in waiters:
        outcome(waiter)
    eventually(lambda: not world.operations.active(), what="all is done")
    points.run_the_rest()
    for waiter in waiters:
        outcome(waiter)
    eventually(lambda: not world.operations.active(), what="all is done")
    kernel_is_whole(world)


def test_kernel_delete_that_arrives_in_the_middle_of_a_pull_deletes_what_was_pulled(world, points):
    deletions = []

    def delete():
        deletions.append(world.supervisor.submit(DeleteKernel("default", new_id())))

    points.at("kernel.pull:built", delete)
    kernel = world.do(PullKernel("default", KernelRequest(source="default")))

    assert outcome(deletions[0]).kind is ErrorKind.NOT_FOUND  # it was asked for another one: the pulled one stays
    assert world.store.kernels.by_name("default") == kernel
    kernel_is_whole(world)


def test_kernel_pull_that_arrives_in_the_middle_of_a_delete_brings_it_back(world, points):
    first = world.do(PullKernel("default", KernelRequest(source="default")))
    pulls = []
    points.at(
        "artifact.remove:row-gone",
        lambda: pulls.append(world.supervisor.submit(PullKernel("default", KernelRequest(source="default")))),
    )
    world.do(DeleteKernel("default", first.id))

    again = pulls[0].wait()
    assert again.id != first.id
    assert world.kernels.builds == ["default", "default"]
    kernel_is_whole(world)


# -- image delete and VM create --------------------------------------------------------------------------


def test_image_deleted_while_a_vm_is_made_of_it_fails_the_vm_which_leaves_nothing(world, points):
    """The delete wins: it is over before the VM's row refers to the image."""
    image = world.do(pull())
    points.at("vm.create:artifacts-here", lambda: world.do(DeleteImage("alpine", image.id)))

    with pytest.raises(BangerError) as caught:
        world.do(CreateVm(new_id(), "web", VmSpec("alpine")))

    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.hint == "try again"
    assert world.store.vms.all() == []
    assert world.store.images.all() == []


def test_vm_made_while_its_image_is_deleted_fails_the_delete_which_leaves_the_image(world, points):
    """The VM wins: its row refers to the image before the image's row is gone."""
    image = world.do(pull())
    points.at("artifact.remove:begun", lambda: world.do(CreateVm(new_id(), "web", VmSpec("alpine"))))

    with pytest.raises(BangerError) as caught:
        world.do(DeleteImage("alpine", image.id))

    assert caught.value.kind is ErrorKind.CONFLICT
    assert world.store.vms.by_name("web").image_id == image.id
    assert world.layout.image_rootfs(image).exists()
    world.do(DeleteVm(world.vm("web").id, "web"))


@pytest.mark.parametrize("seed", range(ROUNDS // 2))
def test_image_delete_and_vm_create_at_random_instants_have_one_winner(world, points, seed):
    chance = random.Random(seed)
    image, vm_id = world.do(pull()), new_id()
    commands = [DeleteImage("alpine", image.id), CreateVm(vm_id, "web", VmSpec("alpine"))]
    chance.shuffle(commands)
    waiters = []
    points.after(chance.randint(1, 8), lambda: waiters.append(world.supervisor.submit(commands[1])))
    waiters.append(world.supervisor.submit(commands[0]))
    outcomes = [outcome(waiters[0])]
    points.run_the_rest()
    outcomes += [outcome(waiter) for waiter in waiters[1:]]

    vm = world.store.vms.get(vm_id)
    if vm is None:
        assert any(isinstance(found, BangerError) for found in outcomes)
    else:  # it may have pulled the image anew after the delete: then it has it all the same
        found = world.store.images.get(vm.image_id)
        assert found is not None
        assert world.layout.image_rootfs(found).exists()
        world.do(DeleteVm(vm.id, vm.name))


# -- register and pull -----------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.ext4"
    file.write_text("sha256:own")
    return file


def test_register_that_arrives_during_a_pull_of_the_name_loses(world, own):
    world.images.gate.close()
    pulling = world.supervisor.submit(pull("mine"))
    world.images.gate.wait_reached()
    registering = world.supervisor.submit(RegisterImage("mine", str(own)))
    world.images.gate.open()

    assert pulling.wait().managed
    assert outcome(registering).kind is ErrorKind.ALREADY_EXISTS


def test_pull_that_arrives_during_a_register_of_the_name_loses(world, points, own):
    pulls = []
    points.at("image.register:staging-made", lambda: pulls.append(world.supervisor.submit(pull("mine"))))

    registered = world.do(RegisterImage("mine", str(own)))

    assert not registered.managed
    assert outcome(pulls[0]).kind is ErrorKind.ALREADY_EXISTS
    assert world.images.builds == []
    assert world.store.images.all() == [registered]


def test_two_names_for_one_row_are_refused_by_the_store_itself(world):
    """Not only by the mailboxes: a second daemon, or a bug, could not give a name twice either."""
    image = world.do(pull())

    with sqlite3.connect(world.layout.database) as other, pytest.raises(sqlite3.IntegrityError):
        other.execute("INSERT INTO images SELECT 'other', name, source, digest, platform, size_bytes, disk_bytes, "
                      "created_at, owner_uid, managed, config, rootfs_path, kernel, has_seed, kernel_digest, "
                      "kernel_source, defaults FROM images")  # fmt: skip
    other.close()
    assert world.store.images.all() == [image]
