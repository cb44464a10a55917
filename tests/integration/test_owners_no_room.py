"""A pull that runs out of room, at every write: a clear error with a number, nothing left, other images fine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from banger.actors.messages import DeleteImage, DeleteKernel, PullImage, PullKernel, ReconcileHost
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import ImageRequest, KernelRequest
from tests.support import origins
from tests.support.faulty_registry import faulty_registry
from tests.support.registry import Layer, Node, build_image
from tests.support.soak import IS_SOAK

#: Steps of the free room that is tried, in `make test` and in `make soak`.
STEPS = 200 if IS_SOAK else 16


@pytest.fixture
def small(tmp_path):
    """A small file system of its own."""
    at = tmp_path / "small"
    at.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", at], check=False).returncode:
        pytest.skip("cannot mount a small file system")
    yield at
    subprocess.run(["umount", "--lazy", at], check=True)


@pytest.fixture
def registry(tmp_path):
    with faulty_registry() as registry:
        origins.serve_all(registry, tmp_path / "scratch")
        yield registry


@pytest.fixture
def world(small):
    world = origins.real_world(small, free_bytes=True)
    yield world
    world.stop()


def free(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_bsize


class Ballast:
    """A file that leaves just so many bytes free."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._file = place / "ballast"

    def leave(self, room: int) -> None:
        self._file.unlink(missing_ok=True)
        with self._file.open("wb") as file:
            if (size := free(self._place) - room) > 0:
                os.posix_fallocate(file.fileno(), 0, size)

    def drop(self) -> None:
        self._file.unlink(missing_ok=True)


PULLS = {
    "image": lambda host: PullImage("big", ImageRequest(f"{host}/{origins.APP}")),
    "bundle": lambda host: PullImage("big", ImageRequest(f"bundle:{host}/{origins.BUNDLE}")),
    "kernel": lambda host: PullKernel("big", KernelRequest(source=f"oci:{host}/{origins.KERNEL}")),
}


@pytest.mark.parametrize("kind", PULLS)
def test_no_room_at_any_write_of_a_pull_is_told_and_leaves_nothing(kind, small, registry, world):
    command, ballast = PULLS[kind](registry.host), Ballast(small)
    registry.serve("test/kept:1", build_image([Layer({"kept": Node(b"x")})]))
    kept = world.do(PullImage("kept", ImageRequest(registry.reference("test/kept:1"))))
    _forget_blobs(world)
    before = free(small)
    world.do(command)
    needed = before - free(small)
    _delete(world, "big")
    failures = set()

    rooms = [needed * step // STEPS // 4096 * 4096 for step in range(STEPS)]
    rooms += [needed - 4096 * pages for pages in range(12, 0, -1)]  # the last writes are small ones
    for step, room in enumerate(rooms):
        _forget_blobs(world)
        ballast.leave(room)
        try:
            world.do(command)
        except BangerError as error:
            assert error.kind is ErrorKind.EXHAUSTED, f"{step}: {error!r} {error.cause}"
            assert any(character.isdigit() for character in f"{error.message} {error.cause}"), error
            failures.add(error.message.partition(":")[0][:40])
            table = world.store.kernels if kind == "kernel" else world.store.images
            assert table.by_name("big") is None, step  # what failed is not there
        ballast.drop()
        _check_nothing_left(world, kept, step)
        _delete(world, "big")

    assert len(failures) > 1  # at writes of several parts
    assert world.do(command).name == "big"
    assert world.do(ReconcileHost()).removed == []


def _forget_blobs(world):
    for blob in (world.layout.blobs / "sha256").iterdir():
        blob.unlink()


def _delete(world, name):
    if image := world.store.images.by_name(name):
        world.do(DeleteImage(name, image.id))
    if kernel := world.store.kernels.by_name(name):
        world.do(DeleteKernel(name, kernel.id))


def _check_nothing_left(world, kept, step):
    assert world.leftovers() == [], step
    assert list((world.layout.blobs / "sha256").glob("*.part")) == [], step
    assert world.store.images.by_name("kept") == kept, step
    assert world.layout.image_rootfs(kept).stat().st_size == kept.size_bytes, step
