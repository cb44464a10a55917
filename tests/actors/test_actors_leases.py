"""Collecting garbage leaves alone what somebody is working with, and only that."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from datetime import timedelta

import freezegun
import pytest

from banger.actors import orphans
from banger.actors.leases import leased
from banger.actors.messages import Prune, PullImage, PushImage, ReconcileHost
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import ImageRequest, PushRequest
from banger.store.leases import LEASE_S
from tests.support import origins
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.faulty_registry import faulty_registry, gated
from tests.support.waiting import eventually

HEX = "ab" * 32


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "home", FakeVmm())
    yield world
    world.images.gate.open()
    world.stop()


@pytest.fixture
def no_grace(monkeypatch):
    """As if everything were a month old: then age protects nothing, and what is spared is spared by a lease."""
    monkeypatch.setattr(orphans, "older_than", lambda parent, grace_s: sorted(parent.iterdir()))


def put_blob(world, name=HEX):
    path = world.layout.blobs / "sha256" / name
    path.write_bytes(b"x" * 5000)
    return path


# -- the table -------------------------------------------------------------------------------------------


def test_lease_holds_until_it_is_dropped(world):
    leases = world.store.leases
    leases.take("one", ["blob:a", "blob:b"])
    leases.take("two", ["blob:b"])

    leases.drop("one")

    assert leases.held() == {"blob:b"}
    assert not leases.unless_held("blob:b", lambda: pytest.fail("it is held"))
    assert leases.unless_held("blob:a", lambda: None)


def test_lease_that_nobody_renews_expires(world):
    leases = world.store.leases
    with freezegun.freeze_time(clock.now()) as now:
        leases.take("stuck", ["blob:a"])
        now.tick(LEASE_S - 1)
        assert leases.held() == {"blob:a"}
        now.tick(2)

        assert leases.held() == set()
        leases.renew("stuck")  # too late: it may be gone already
        assert leases.held() == set()


def test_lease_lasts_while_its_operation_makes_progress(world):
    leases, operation = world.store.leases, Operation("image.pull", "x")
    with freezegun.freeze_time(clock.now()) as now, leased(leases, operation):
        leases.take(operation.id, ["blob:a"])
        for _ in range(10):
            now.tick(LEASE_S / 2)
            operation.note("still here")
        assert "blob:a" in leases.held()
        now.tick(timedelta(seconds=LEASE_S + 1))

        assert leases.held() == set()


def test_lease_of_an_earlier_daemon_binds_nobody(world):
    world.store.leases.take("dead", ["blob:a"])

    world.restart()

    assert world.store.leases.held() == set()


def test_taking_a_lease_waits_for_whoever_takes_the_thing_away(world):
    """Then the taker finds it gone and fetches it anew: nothing vanishes between a look and a deed."""
    leases, order = world.store.leases, []
    removing, go_on = threading.Event(), threading.Event()

    def remove():
        removing.set()
        assert go_on.wait(10)
        order.append("removed")

    def take():
        leases.take("late", ["blob:a"])
        order.append("taken")

    remover = threading.Thread(target=leases.unless_held, args=("blob:a", remove))
    taker = threading.Thread(target=take)
    remover.start()
    assert removing.wait(10)
    taker.start()
    go_on.set()
    for thread in (remover, taker):
        thread.join()

    assert order == ["removed", "taken"]


# -- what is being built ---------------------------------------------------------------------------------


def test_reconcile_spares_what_is_being_built_however_old_and_takes_what_a_failed_build_left(world, no_grace):
    left = world.layout.staging / "image-feedfacecafe-0a1b"
    left.mkdir()
    world.images.gate.close()
    pulling = world.supervisor.submit(PullImage("alpine", ImageRequest("alpine")))
    world.images.gate.wait_reached()

    report = world.do(ReconcileHost())
    assert report.removed == [str(left)]
    world.do(ReconcileHost(at_start=True))  # a start that takes long is overtaken by its first pull
    world.images.gate.open()

    image = pulling.wait()
    assert world.layout.image_rootfs(image).exists()
    assert world.leftovers() == []
    assert world.store.leases.held() == set()


def test_reconcile_spares_what_a_push_has_packed(world, no_grace):
    image = world.do(PullImage("alpine", ImageRequest("alpine")))
    packing, go_on = threading.Event(), threading.Event()

    def push(image, kernel, push, operation):
        scratch = world.layout.staging / f"push-{operation.id}-x"
        scratch.mkdir()
        packing.set()
        assert go_on.wait(10)
        scratch.rmdir()  # fails if somebody took it
        return "sha256:x"

    world.image_tools.push = push
    pushing = world.supervisor.submit(PushImage("alpine", image.id, PushRequest("r/x:1")))
    assert packing.wait(10)
    assert world.do(ReconcileHost()).removed == []
    go_on.set()

    assert pushing.wait() == {"digest": "sha256:x"}


def test_directory_renamed_into_place_but_without_its_row_yet_is_spared(world, no_grace, monkeypatch):
    """The instant between the rename and the row, in which the directory has no row and looks like an orphan."""
    reached, go_on = threading.Event(), threading.Event()

    def stop_there(name):
        if name == "artifact.publish:renamed":
            reached.set()
            assert go_on.wait(10)

    monkeypatch.setattr("banger.actors.artifact_owner.crashpoint", stop_there)
    pulling = world.supervisor.submit(PullImage("alpine", ImageRequest("alpine")))
    assert reached.wait(10)
    assert world.do(ReconcileHost()).removed == []
    go_on.set()

    assert world.layout.image_rootfs(pulling.wait()).exists()


def test_prune_leaves_the_blobs_of_a_running_pull_and_takes_them_afterwards(tmp_path, no_grace):
    """Also those that were here long before it: they are checked, then read, and must not go in between."""
    gate = threading.Event()
    with faulty_registry() as registry:
        origins.serve_all(registry, tmp_path)
        world = origins.real_world(tmp_path / "home")
        try:
            _check_prune_while_pulling(world, registry, gate)
        finally:
            gate.set()
            world.stop()


def _check_prune_while_pulling(world, registry, gate):
    app, blobs = registry.reference(origins.APP), world.layout.blobs / "sha256"
    first = world.do(PullImage("first", ImageRequest(app)))
    layers = sorted(path.name for path in blobs.iterdir())
    (blobs / layers[1]).unlink()  # so that the next pull has one, and waits for the other
    registry.on(layers[1], gated(gate))
    world.store.images.update(replace(first, digest="sha256:another"))  # so that it is not linked
    pulling = world.supervisor.submit(PullImage("second", ImageRequest(app)))
    eventually((blobs / f"{layers[1]}.part").exists, what="the second layer has begun")
    put_blob(world)

    assert world.do(Prune()).removed == [f"blob {HEX[:12]}"]
    gate.set()
    pulling.wait()
    assert sorted(world.do(Prune()).removed) == [f"blob {name[:12]}" for name in layers]


# -- caches ----------------------------------------------------------------------------------------------


def age(path, monkeypatch, seconds):
    """A path's ctime cannot be set, so the clock is moved instead."""
    monkeypatch.setattr(orphans.time, "time", lambda: time.clock_gettime(time.CLOCK_REALTIME) + seconds)


def test_reconcile_takes_stale_partial_downloads_and_leaves_whole_ones(world, monkeypatch):
    part, whole = put_blob(world, f"{HEX}.part"), put_blob(world, "cd" * 32)
    assert world.do(ReconcileHost()).removed == []

    age(part, monkeypatch, orphans.CACHED_S + 1)

    assert world.do(ReconcileHost()).removed == [f"download {HEX[:12]}"]
    assert whole.exists()
    assert world.do(ReconcileHost()).removed == []


def test_prune_takes_stale_downloads_and_toolboxes_and_says_what_they_freed(world, monkeypatch):
    part, whole = put_blob(world, f"{HEX}.part"), put_blob(world, "cd" * 32)
    toolbox = world.layout.toolbox / f"{'ef' * 16}.cpio"
    toolbox.write_bytes(b"x" * 5000)
    unpacked = world.layout.toolbox / "packages-0123"
    (unpacked / "usr").mkdir(parents=True)
    assert world.do(Prune(dry_run=True)).removed == []
    age(part, monkeypatch, orphans.CACHED_GRACE_S + 1)
    assert world.do(Prune()).removed == []

    planned = world.do(Prune(unused=True, dry_run=True))
    assert all(path.exists() for path in (part, whole, toolbox, unpacked))
    done = world.do(Prune(unused=True))

    assert planned == done
    assert len(done.removed) == 4
    assert done.freed_bytes >= 3 * 8192
    assert not any(path.exists() for path in (part, whole, toolbox, unpacked))
    assert list(world.layout.trash.iterdir()) == []


def test_toolbox_that_a_start_used_lately_is_no_longer_stale(world, monkeypatch):
    from banger.guest.boot import _marked_used

    toolbox = world.layout.toolbox / "x.cpio"
    assert not _marked_used(toolbox)
    toolbox.touch()
    before = toolbox.stat().st_ctime_ns
    eventually(lambda: _marked_used(toolbox) and toolbox.stat().st_ctime_ns > before, what="its time moves")


def test_store_on_a_full_disk_says_how_much_room_it_wants(world, monkeypatch):
    from banger.store import database, failures

    class Full:
        in_transaction = False

        def execute(self, *_):
            raise database.sqlite.OperationalError("database or disk is full")

        def close(self):
            pass

    real = world.store.database._writer
    monkeypatch.setattr(world.store.database, "_writer", Full())
    with pytest.raises(BangerError) as caught:
        world.store.leases.drop("x")
    monkeypatch.setattr(world.store.database, "_writer", real)

    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert str(failures.ROOM_BYTES) in caught.value.cause
    assert os.fspath(world.layout.data) == caught.value.subject
