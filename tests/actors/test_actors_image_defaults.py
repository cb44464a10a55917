"""What an image says about its VMs: the kernel they boot and how large they are, unless somebody says otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banger.actors.messages import (
    CommitVm,
    CreateVm,
    DeleteVm,
    ExportImage,
    PromoteImage,
    PullImage,
    PullKernel,
    PushImage,
    RegisterImage,
    TagImage,
)
from banger.actors.vm_sizes import with_sizes
from banger.catalog import Catalog
from banger.config import Config
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel
from banger.core.names import new_id
from banger.core.ports import ImageRequest, KernelRequest, PushRequest
from banger.core.wire.sizes import DefaultSizes
from banger.core.wire.vm_spec import VmSpec
from banger.host.resources import cpu_count
from banger.layout import Layout
from banger.resolver import StoreResolver
from banger.store import Store
from tests.support import origins
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.faulty_registry import faulty_registry

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SOURCE = "oci:registry.example.org/kernels/linux:6.1"
SIZES = DefaultSizes(1, 768, 2048)


# -- sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "image", "expected"),
    [
        ({}, DefaultSizes(), (1, 512, 10240)),
        ({}, SIZES, (1, 768, 2048)),
        ({"memory_mib": 300}, SIZES, (1, 300, 2048)),
        ({"cpus": 99, "disk_mib": 1}, SIZES, (99, 768, 1)),
        ({}, DefaultSizes(cpus=1024), (cpu_count(), 512, 10240)),
    ],
    ids=["settings", "image", "typed memory", "typed cpus and disk", "more cpus than there are"],
)
def test_sizes_are_what_was_typed_then_the_images_then_the_settings(tmp_path, spec, image, expected):
    made = with_sizes(VmSpec("x", **spec), image, Config.load(tmp_path / "none", {}))

    assert (made.cpus, made.memory_mib, made.disk_mib) == expected


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "home", FakeVmm())
    yield world
    world.stop()


def with_defaults(world, name="alpine", **changes):
    image = world.do(PullImage(name, ImageRequest(name)))
    image = replace(image, defaults=SIZES, **changes)
    world.store.images.update(image)
    return image


def test_vm_of_an_image_with_sizes_gets_them_and_shows_them(world):
    with_defaults(world)

    vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine", memory_mib=256)))

    assert (vm.spec.cpus, vm.spec.memory_mib, vm.spec.disk_mib) == (1, 256, 2048)
    assert world.store.vms.get(vm.id) == vm


def test_vm_of_an_image_that_wants_more_memory_than_there_is_is_refused_and_leaves_nothing(world):
    image = with_defaults(world)
    world.store.images.update(replace(image, defaults=DefaultSizes(memory_mib=1 << 24)))

    with pytest.raises(BangerError) as caught:
        world.do(CreateVm(new_id(), "web", VmSpec("alpine")))

    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert "--memory" in caught.value.hint
    assert world.store.vms.all() == []
    assert world.leftovers() == []


def test_what_is_made_of_an_image_takes_over_its_kernel_and_sizes(world, tmp_path):
    with_defaults(world, kernel="edge", kernel_digest=DIGEST, kernel_source=SOURCE)
    vm = world.do(CreateVm(new_id(), "web", VmSpec("alpine", "default")))
    alias = world.do(TagImage("alias", world.store.images.by_name("alpine").id))
    committed = world.do(CommitVm("committed", vm.id))
    own = tmp_path / "own.ext4"
    own.write_text("sha256:own")
    registered = world.do(RegisterImage("own", str(own), kernel="edge"))
    world.store.images.update(replace(registered, defaults=SIZES, kernel_digest=DIGEST, kernel_source=SOURCE))

    for image in (alias, committed, world.do(PromoteImage("own"))):
        assert (image.kernel, image.kernel_digest, image.kernel_source) == ("edge", DIGEST, SOURCE), image.name
        assert image.defaults == SIZES, image.name
    world.do(DeleteVm(vm.id, "web"))


def test_export_and_push_suggest_what_is_asked_for_and_keep_the_rest(world, tmp_path):
    image = with_defaults(world, kernel="default")
    kernel = world.do(PullKernel("default", KernelRequest(source="default")))
    given = []
    world.image_tools.export = lambda image, kernel, target, form, operation: (
        given.append((image, kernel)),
        target.touch(),
    )
    world.image_tools.push = lambda image, kernel, push, operation: given.append((image, kernel)) or "sha256:x"
    asked = DefaultSizes(cpus=4)

    world.do(ExportImage("alpine", image.id, str(tmp_path / "out"), "bundle", asked))
    world.do(PushImage("alpine", image.id, PushRequest("r/x:1"), asked))

    assert [(image.defaults, found) for image, found in given] == [(DefaultSizes(4, 768, 2048), kernel)] * 2
    assert world.store.images.get(image.id) == image


# -- kernels ---------------------------------------------------------------------------------------------


@pytest.fixture
def resolver(tmp_path):
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    layout.make_directories()
    store = Store(layout.database)
    yield StoreResolver(store, Catalog.load(layout), Config.load(layout.config_file, {}))
    store.close()


def kernel(resolver, name, digest):
    row = Kernel(new_id(), name, "6.1", "x", digest, "linux/amd64", "bzimage", 1, clock.now())
    resolver._store.kernels.insert(row)
    return row


def image(name="team", digest="", source=""):
    return Image(
        "i", "app", "x", "x", "linux/amd64", 1, 1, clock.now(), kernel=name, kernel_digest=digest, kernel_source=source
    )


def test_image_that_wants_no_kernel_gets_the_default_one(resolver):
    default = kernel(resolver, "debian-cloud", OTHER)

    assert resolver.kernel_of(image(""), 0) == default


def test_image_gets_the_very_kernel_it_wants_whatever_its_name_here(resolver):
    kernel(resolver, "team", OTHER)
    exact = kernel(resolver, "mine", DIGEST)

    assert resolver.kernel_of(image("team", DIGEST, SOURCE), 0) == exact


def test_image_gets_the_kernel_of_that_name_where_no_other_can_be_had(resolver):
    named = kernel(resolver, "team", OTHER)

    assert resolver.kernel_of(image("team"), 0) == named
    assert resolver.kernel_of(image("team", DIGEST), 0) == named
    assert resolver.kernel_of(image("team", "", SOURCE), 0) == named


def test_kernel_that_is_not_here_is_pulled_from_where_the_image_says(resolver):
    command = resolver.kernel_of(image("team", DIGEST, SOURCE), 7)

    assert (command.name, command.request.source, command.owner_uid) == ("team", SOURCE, 7)
    assert not command.refresh
    assert resolver.kernel_of(image("", DIGEST, SOURCE), 0).name == "registry.example.org/kernels/linux:6.1"


def test_kernel_whose_name_means_another_one_here_is_pulled_under_a_name_of_its_own(resolver):
    kernel(resolver, "team", OTHER)

    assert resolver.kernel_of(image("team", DIGEST, SOURCE), 0).name == "team-aaaaaaaaaaaa"


def test_kernel_that_nobody_knows_is_not_found_and_says_for_which_image(resolver):
    with pytest.raises(BangerError, match=r'"app" wants the kernel "team"') as caught:
        resolver.kernel_of(image("team", DIGEST), 0)

    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert "--kernel" in caught.value.hint


def test_vm_of_a_bundle_brings_its_kernel_and_gets_its_sizes(tmp_path):
    """All the way: a bundle and a kernel in a registry, and a VM that names the bundle and nothing else."""
    with faulty_registry() as registry:
        source = f"oci:{registry.reference(origins.KERNEL)}"
        row = Kernel("k", "team", origins.RELEASE, source, DIGEST, "linux/amd64", "bzimage", 1, clock.now())
        origins.serve_kernel(registry, origins.KERNEL)
        origins.serve_bundle(registry, origins.BUNDLE, tmp_path, kernel=row, defaults=SIZES)
        world = origins.real_world(tmp_path / "home")
        try:
            spec = VmSpec(f"bundle:{registry.reference(origins.BUNDLE)}")
            vm = world.do(CreateVm(new_id(), "web", spec))
            found, booted = world.store.images.get(vm.image_id), world.store.kernels.get(vm.kernel_id)
            world.do(DeleteVm(vm.id, "web"))
        finally:
            world.stop()

    assert (found.kernel, found.kernel_digest, found.kernel_source) == ("team", DIGEST, source)
    assert (booted.name, booted.source, booted.version) == ("team", source, origins.RELEASE)
    assert (vm.spec.cpus, vm.spec.memory_mib, vm.spec.disk_mib) == (1, 768, 2048)
