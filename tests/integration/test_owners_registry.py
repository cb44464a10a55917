"""Owners over the real image source and a registry on loopback: the promises about concurrency, counted in requests."""

from __future__ import annotations

import os
import subprocess
import threading
import time

import pytest

from banger.actors.messages import CreateVm, DeleteVm, PullImage, ReconcileHost
from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import new_id
from banger.core.ports import ImageRequest
from banger.core.wire.vm_spec import VmSpec
from banger.layout import Layout
from banger.oci.source import OciImageSource
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.faulty_registry import faulty_registry, gated, stalled, status, truncated
from tests.support.registry import Layer, Node, build_image
from tests.support.waiting import eventually


def image_of(*files: str, size: int = 300_000):
    layers = [Layer({name: Node(os.urandom(size), mode=0o644)}) for name in files]
    return build_image(layers)


@pytest.fixture
def registry():
    with faulty_registry() as registry:
        yield registry


@pytest.fixture
def world(tmp_path):
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    source = OciImageSource(layout, Config.load(layout.config_file, {}), env={})
    world = World(tmp_path, FakeVmm(), image_sources=(source,))
    yield world
    assert world.leftovers() == []
    world.stop()


def pull(registry, name: str, *, refresh: bool = False) -> PullImage:
    return PullImage(name, ImageRequest(registry.reference(name)), refresh)


def blob_requests(registry, image) -> list[int]:
    return [len(registry.asked(digest)) for digest in image.blobs]


def test_image_that_is_pulled_again_by_its_digest_says_so_and_fetches_nothing(world, registry):
    """The catalog's pin was added later: only the record of a pull that was checked against it can vouch for it."""
    image = image_of("one")
    registry.serve("test/app:1", image)
    loose = world.do(pull(registry, "test/app:1"))
    pinned = f"{registry.reference('test/app:1')}@{image.digest}"

    again = world.do(PullImage("test/app:1", ImageRequest(pinned), refresh=True))
    assert (loose.source, again.source) == (registry.reference("test/app:1"), pinned)
    assert again.digest == loose.digest
    assert [len(registry.asked(layer)) for layer in image.layer_digests] == [1]
    assert world.do(PullImage("test/app:1", ImageRequest(pinned), refresh=True)) == again


def test_hundred_callers_of_a_missing_image_fetch_each_blob_once(world, registry):
    image = image_of("one", "two")
    registry.serve("test/app:1", image)
    gate = threading.Event()
    registry.on(image.layer_digests[1], gated(gate))
    answered: list[float] = []

    waiters = [world.supervisor.submit(pull(registry, "test/app:1")) for _ in range(100)]
    for waiter in waiters:
        waiter.when_answered(lambda: answered.append(time.monotonic()))
    eventually(lambda: all(waiter.operation for waiter in waiters), what="all hundred are taken")
    gate.set()
    rows = {waiter.wait().id for waiter in waiters}

    assert len(rows) == 1
    assert blob_requests(registry, image) == [1, 1, 1]
    assert max(answered) - min(answered) < 0.1


def test_image_stalled_by_its_server_does_not_hold_up_another(world, registry):
    slow, quick = image_of("slow"), image_of("quick")
    registry.serve("test/slow:1", slow)
    registry.serve("test/quick:1", quick)
    registry.always(slow.layer_digests[0], stalled(after=1000))
    stuck = world.supervisor.submit(pull(registry, "test/slow:1"))
    eventually(lambda: registry.asked(slow.layer_digests[0]), what="the slow transfer began")

    assert world.do(pull(registry, "test/quick:1")).name == "test/quick:1"
    assert not stuck.answered
    stuck.leave()
    eventually(lambda: not world.operations.active(), what="the stalled pull ends")


def test_only_caller_who_leaves_stops_the_transfer_within_a_second_and_the_next_resumes_it(world, registry):
    image = image_of("big", size=1_000_000)
    registry.serve("test/app:1", image)
    layer = image.layer_digests[0]
    registry.on(layer, stalled(after=400_000))
    waiter = world.supervisor.submit(pull(registry, "test/app:1"))
    parts = world.layout.blobs / "sha256"
    eventually(lambda: any(part.stat().st_size >= 400_000 for part in parts.glob("*.part")), what="half has come")

    left_at = time.monotonic()
    waiter.leave()
    eventually(lambda: not world.operations.active(), what="the transfer ends")

    assert time.monotonic() - left_at < 1.0
    assert world.store.images.all() == []
    assert world.leftovers() == []
    world.do(pull(registry, "test/app:1"))
    assert registry.asked(layer)[-1].headers["range"].startswith("bytes=")


def test_first_caller_who_leaves_does_not_make_the_others_start_from_zero(world, registry):
    image = image_of("big", size=1_000_000)
    registry.serve("test/app:1", image)
    registry.on(image.layer_digests[0], truncated(after=400_000))
    first = world.supervisor.submit(pull(registry, "test/app:1"))
    second = world.supervisor.submit(pull(registry, "test/app:1"))
    eventually(lambda: second.operation is not None, what="the second has joined")

    first.leave()

    assert second.wait().name == "test/app:1"
    requests = registry.asked(image.layer_digests[0])
    assert [request.headers.get("range", "") for request in requests] == ["", "bytes=400000-"]


def test_pull_that_failed_is_tried_anew_by_the_next_call(world, registry):
    image = image_of("one")
    registry.serve("test/app:1", image)
    registry.on("/manifests/", status(403))
    waiters = [world.supervisor.submit(pull(registry, "test/app:1")) for _ in range(3)]

    for waiter in waiters:
        with pytest.raises(BangerError) as caught:
            waiter.wait()
        assert caught.value.kind is ErrorKind.DENIED
    assert world.do(pull(registry, "test/app:1")).name == "test/app:1"


def test_moved_tag_is_seen_built_beside_and_collected_when_its_last_vm_is_gone(world, registry):
    registry.serve("test/app:1", image_of("one"))
    old = world.do(pull(registry, "test/app:1"))
    vm = world.do(CreateVm(new_id(), "user", VmSpec("test/app:1")))
    moved = image_of("one", "two")
    registry.serve("test/app:1", moved)

    new = world.do(pull(registry, "test/app:1", refresh=True))

    assert (new.digest, new.name) == (moved.digest, "test/app:1")
    assert world.layout.image_rootfs(old).exists()
    world.do(DeleteVm(vm.id, "user"))
    world.do(ReconcileHost())
    assert [image.id for image in world.store.images.all()] == [new.id]


def test_images_that_share_a_base_fetch_and_keep_it_once(world, registry):
    base = Layer({"base": Node(os.urandom(500_000))})
    images = [build_image([base, Layer({f"own-{number}": Node(b"x")})]) for number in range(10)]
    for number, image in enumerate(images):
        registry.serve(f"test/app:{number}", image)

    waiters = [world.supervisor.submit(pull(registry, f"test/app:{number}")) for number in range(10)]
    for waiter in waiters:
        waiter.wait()

    assert len(registry.asked(images[0].layer_digests[0])) == 1


def test_pull_up_to_date_asks_for_the_manifest_only(world, registry):
    image = image_of("one")
    registry.serve("test/app:1", image)
    first = world.do(pull(registry, "test/app:1"))
    registry.requests.clear()

    again = world.do(pull(registry, "test/app:1", refresh=True))

    assert again == first
    assert not [request for request in registry.requests if image.layer_digests[0] in request.path]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: os.urandom(60 << 20), id="for its blob"),
        pytest.param(lambda: b"x" * (150 << 20), id="for its file system"),
    ],
)
def test_no_room_for_an_image_says_how_much_is_needed_and_leaves_nothing(tmp_path, registry, content):
    """On a real, small file system; other images there stay fine."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=110m", "tmpfs", small], check=False).returncode:
        pytest.skip("cannot mount a small file system")
    try:
        _check_no_room(small, registry, content())
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def _check_no_room(small, registry, content):
    layout = Layout.from_environment({"BANGER_HOME": str(small)})
    source = OciImageSource(layout, Config.load(layout.config_file, {}), env={})
    world = World(small, FakeVmm(), image_sources=(source,))
    try:
        registry.serve("test/small:1", image_of("one", size=1000))
        registry.serve("test/big:1", build_image([Layer({"big": Node(content)})]))
        kept = world.do(pull(registry, "test/small:1"))

        with pytest.raises(BangerError) as caught:
            world.do(pull(registry, "test/big:1"))

        assert caught.value.kind is ErrorKind.EXHAUSTED
        assert any(character.isdigit() for character in f"{caught.value.message} {caught.value.cause}")
        assert world.leftovers() == []
        assert [image.id for image in world.store.images.all()] == [kept.id]
    finally:
        world.stop()
