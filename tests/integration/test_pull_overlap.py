"""Layers are written while they arrive, and nothing of it counts until every digest is right."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from banger.actors.messages import PullImage, RegisterImage
from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image
from banger.core.ports import ImageRequest
from banger.image_tools import LocalImageTools
from banger.layout import Layout
from banger.oci.source import OciImageSource
from tests.support.ext4_reader import listing, needs_e2fsprogs
from tests.support.fakes import WAIT_S, World
from tests.support.faulty_registry import (
    Exchange,
    Fault,
    FaultyRegistry,
    corrupted,
    faulty_registry,
    replaced,
    stalled,
    truncated,
    without_ranges,
)
from tests.support.registry import BuiltImage, Layer, Node, build_image, digest_of
from tests.support.waiting import eventually

pytestmark = needs_e2fsprogs

NAME = "test/app:1"


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with faulty_registry() as registry:
        yield registry


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    config = Config.load(layout.config_file, {})
    source = OciImageSource(layout, config, env={})
    world = World(tmp_path, image_sources=(source,), image_tools=LocalImageTools(layout, config))
    yield world
    assert world.leftovers() == []
    world.stop()


def noise(name: str, size: int = 600_000) -> Layer:
    return Layer({name: Node(os.urandom(size), mode=0o644)})


def served(registry: FaultyRegistry, *layers: Layer) -> BuiltImage:
    image = build_image(layers)
    registry.serve(NAME, image)
    return image


def pull(registry: FaultyRegistry) -> PullImage:
    return PullImage(NAME, ImageRequest(registry.reference(NAME)))


def files(world: World, image: Image) -> dict[bytes, bytes]:
    return {path: facts.data for path, facts in listing(world.layout.image_rootfs(image)).items() if facts.data}


def content(layer: Layer) -> dict[bytes, bytes]:
    return {path.encode(): node.content for path, node in layer.entries.items() if isinstance(node, Node)}  # type: ignore[misc]


def data_of(path: Path) -> bytes:
    """All that is no hole."""
    data, end = b"", 0
    with path.open("rb") as file:
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # none is left
                return data
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            data += os.pread(file.fileno(), end - start, start)


def written_bytes(world: World) -> int:
    """What the file system that is being made occupies."""
    return sum(file.stat().st_blocks * 512 for file in world.layout.staging.glob("*/rootfs.ext4"))


def held(go_on: threading.Event) -> Fault:
    """The truth, but not yet."""

    def fault(exchange: Exchange) -> None:
        assert go_on.wait(WAIT_S)
        exchange.honest()

    return fault


def failure(world: World, command: PullImage) -> BangerError:
    """Why it fails."""
    with pytest.raises(BangerError) as caught:
        world.do(command)
    return caught.value


def test_layer_is_written_before_all_of_it_has_arrived(world: World, registry: FaultyRegistry) -> None:
    image = served(registry, noise("a", 5_000_000))
    registry.on(image.layer_digests[0], stalled(after=4_000_000))
    waiter = world.supervisor.submit(pull(registry))

    eventually(lambda: written_bytes(world) >= 3_000_000, what="the first part is written")
    assert not waiter.answered
    waiter.leave()
    eventually(lambda: not world.operations.active(), what="the pull ends")

    assert world.store.images.all() == []
    assert files(world, world.do(pull(registry)))
    assert registry.asked(image.layer_digests[0])[-1].headers["range"].startswith("bytes=")


def test_layer_that_is_complete_is_written_while_another_stalls(world: World, registry: FaultyRegistry) -> None:
    image = served(registry, noise("quick", 5_000_000), noise("slow", 1_000_000))
    registry.on(image.layer_digests[1], stalled(after=1000))
    waiter = world.supervisor.submit(pull(registry))

    eventually(lambda: written_bytes(world) >= 4_500_000, what="the quick layer is written")
    waiter.leave()
    eventually(lambda: not world.operations.active(), what="the pull ends")


def test_digest_found_wrong_at_the_end_voids_all_that_was_written(world: World, registry: FaultyRegistry) -> None:
    image = served(registry, noise("a"), noise("b"))
    wrong = image.layer_digests[1]
    blob = bytearray(image.blobs[wrong])
    blob[4:8] = b"\1\2\3\4"  # the time in the gzip header: the content is as good as before
    assert gzip.decompress(bytes(blob)) == gzip.decompress(image.blobs[wrong])
    registry.on(wrong, replaced(bytes(blob)))

    error = failure(world, pull(registry))

    assert error.kind is ErrorKind.INVALID
    assert wrong in error.message
    assert "hash to" in error.cause
    assert world.store.images.all() == []
    assert not (world.layout.blobs / "sha256" / wrong.removeprefix("sha256:")).exists()
    assert world.do(pull(registry)).digest == image.digest


def test_bytes_that_make_no_archive_are_reported_as_the_wrong_bytes_they_are(
    world: World, registry: FaultyRegistry
) -> None:
    image = served(registry, noise("a"), noise("b"))
    registry.on(image.layer_digests[0], corrupted())

    error = failure(world, pull(registry))

    assert image.layer_digests[0] in error.message
    assert "hash to" in error.cause


def test_stale_part_that_was_written_already_leaves_no_trace(world: World, registry: FaultyRegistry) -> None:
    right, other = noise("right", 5_000_000), noise("other", 5_000_000)
    image = served(registry, right)
    part = world.layout.blobs / "sha256" / f"{image.layer_digests[0].removeprefix('sha256:')}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(other.blob()[:4_000_000])
    go_on = threading.Event()
    registry.on(image.layer_digests[0], held(go_on))

    waiter = world.supervisor.submit(pull(registry))
    eventually(lambda: written_bytes(world) >= 3_000_000, what="what is stale is written")
    go_on.set()
    pulled = waiter.wait()

    assert files(world, pulled) == content(right)
    [stale] = content(other).values()
    assert stale[:4096] not in data_of(world.layout.image_rootfs(pulled))


def test_server_that_begins_anew_half_way_gives_the_right_image(world: World, registry: FaultyRegistry) -> None:
    layer = noise("a")
    image = served(registry, layer)
    registry.on(image.layer_digests[0], truncated(after=400_000), without_ranges())

    assert files(world, world.do(pull(registry))) == content(layer)


def test_bad_layer_is_reported_while_another_stalls(world: World, registry: FaultyRegistry) -> None:
    image = served(registry, noise("slow", 900_000), Layer({"n" * 300: b"a name that no file can have"}))
    registry.always(image.layer_digests[0], stalled(after=1000))

    error = failure(world, pull(registry))

    assert error.kind is ErrorKind.INVALID
    assert error.message == "layer 2 of 2 is not acceptable"


def test_layers_that_do_not_unpack_to_their_diff_ids_are_refused_with_both_digests(
    world: World, registry: FaultyRegistry
) -> None:
    layers = [noise("a"), Layer({"small": b"1"}, "zstd"), Layer({"plain": b"2"}, "plain")]
    right = [digest_of(layer.tar()) for layer in layers]
    for wrong in range(3):
        diff_ids = [*right[:wrong], right[wrong - 1], *right[wrong + 1 :]]
        registry.serve(NAME, build_image(layers, diff_ids=diff_ids))

        error = failure(world, pull(registry))

        assert (error.kind, error.message) == (ErrorKind.INVALID, f"layer {wrong + 1} of 3 is not acceptable")
        assert right[wrong] in error.cause
        assert diff_ids[wrong] in error.cause
        assert "diff_id" in error.cause


def test_layers_whose_diff_ids_are_swapped_are_refused(world: World, registry: FaultyRegistry) -> None:
    layers = [noise("a"), noise("b")]
    registry.serve(NAME, build_image(layers, diff_ids=[digest_of(layer.tar()) for layer in reversed(layers)]))

    assert "diff_id" in failure(world, pull(registry)).cause


def test_layer_whose_diff_id_is_of_the_other_algorithm_is_verified_too(world: World, registry: FaultyRegistry) -> None:
    layers = [Layer({"a": b"1"}), Layer({"b": b"2"}, "plain")]
    diff_ids = ["sha512:" + hashlib.sha512(layer.tar()).hexdigest() for layer in layers]
    registry.serve(NAME, build_image(layers, diff_ids=diff_ids))
    assert files(world, world.do(pull(registry))) == {b"a": b"1", b"b": b"2"}

    registry.serve(NAME, build_image(layers, diff_ids=diff_ids[::-1]))
    again = replace(pull(registry), refresh=True)
    assert "diff_id" in failure(world, again).cause


def test_image_that_unpacks_to_more_than_the_setting_allows_is_refused_with_both(
    tmp_path: Path, registry: FaultyRegistry
) -> None:
    served(registry, Layer({"small": b"1"}), Layer({"bomb": Node(b"a" * (4 << 20))}, "zstd"))
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    config = Config.load(layout.config_file, {"BANGER_IMAGE_MAX_UNPACKED_MIB": "2"})
    world = World(tmp_path, image_sources=(OciImageSource(layout, config, env={}),))

    error = failure(world, pull(registry))
    world.stop()

    assert (error.kind, error.message) == (ErrorKind.INVALID, "layer 2 of 2 is not acceptable")
    assert "2.0 MiB, which is the limit (image.max_unpacked_mib)" in error.cause
    assert "raise image.max_unpacked_mib" in error.hint


def test_pulled_and_registered_images_have_the_home_directory_as_their_seed(
    world: World, registry: FaultyRegistry
) -> None:
    served(registry, Layer({"root/": b"", "root/.profile": b"export A=1\n", "etc/shadow": b"secret"}))
    pulled = world.do(pull(registry))
    registered = world.do(RegisterImage("own", str(world.layout.image_rootfs(pulled))))

    for image in (pulled, registered):
        assert image.has_seed
        assert {path: facts.data for path, facts in listing(world.layout.image_seed(image)).items() if facts.data} == {
            b".profile": b"export A=1\n"
        }
