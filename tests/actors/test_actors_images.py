"""Owners of image names: one pull per name, many names at once, publishing, deleting, cancelling."""

from __future__ import annotations

import threading

import pytest

from banger.actors.messages import CreateVm, DeleteImage, PullImage
from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import new_id
from banger.core.ports import ImageRequest
from banger.core.wire.vm_spec import VmSpec
from tests.support.fakes import WAIT_S, Gate, World
from tests.support.waiting import eventually


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    for gate in (world.images.gate, *world.images.gates.values()):
        gate.open()
    world.stop()


def pull(name: str, *, refresh: bool = False) -> PullImage:
    return PullImage(name, ImageRequest(name), refresh)


def test_image_pull_publishes_files_and_row_together(world):
    image = world.do(pull("alpine"))

    assert world.store.images.by_name("alpine") == image
    assert world.layout.image_rootfs(image).read_text() == image.digest
    assert world.leftovers() == []


def test_image_pull_by_a_hundred_callers_builds_once(world):
    world.images.gate.close()
    waiters = [world.supervisor.submit(pull("alpine")) for _ in range(100)]
    world.images.gate.wait_reached()
    world.images.gate.open()

    ids = {waiter.wait().id for waiter in waiters}

    assert len(ids) == 1
    assert world.images.builds == ["alpine"]


def test_image_pull_behind_a_pull_with_another_wish_finds_the_published_result(world):
    """Not joined, because the wish differs; still no second build, because it rechecks when its turn comes."""
    world.images.gate.close()
    first = world.supervisor.submit(pull("alpine", refresh=True))
    world.images.gate.wait_reached()
    second = world.supervisor.submit(pull("alpine"))
    world.images.gate.open()

    assert second.wait().id == first.wait().id
    assert world.images.builds == ["alpine"]


def test_image_pull_with_another_size_makes_an_unchanged_image_anew(world):
    small = world.do(PullImage("alpine", ImageRequest("alpine"), refresh=True))
    large = world.do(PullImage("alpine", ImageRequest("alpine", size_bytes=8 << 20), refresh=True))

    assert (small.size_bytes, large.size_bytes) == (4096, 8 << 20)
    assert [image.id for image in world.store.images.all()] == [large.id], "the first one went, since no VM has it"
    for size_bytes in (0, 8 << 20):
        again = PullImage("alpine", ImageRequest("alpine", size_bytes=size_bytes), refresh=True)
        assert world.do(again).id == large.id, "it is up to date"
    assert world.images.builds == ["alpine", "alpine"]
    assert world.leftovers() == []


def test_image_pulls_of_different_names_run_in_parallel(world):
    world.images.gates["slow"] = slow = Gate(is_open=False)
    stalled = world.supervisor.submit(pull("slow"))
    slow.wait_reached()

    assert world.do(pull("quick")).name == "quick"
    assert not stalled.answered


def test_image_pull_cancelled_by_its_only_caller_stops_and_leaves_nothing(world):
    world.images.gate.close()
    waiter = world.supervisor.submit(pull("alpine"))
    world.images.gate.wait_reached()

    waiter.leave()

    eventually(lambda: not world.operations.active(), what="the pull ends")
    assert world.store.images.all() == []
    assert world.leftovers() == []


def test_image_pull_left_by_one_of_two_callers_goes_on_for_the_other(world):
    world.images.gate.close()
    first = world.supervisor.submit(pull("alpine"))
    second = world.supervisor.submit(pull("alpine"))
    world.images.gate.wait_reached()
    eventually(lambda: second.operation is not None, what="the second caller is joined")

    first.leave()
    world.images.gate.open()

    assert second.wait().name == "alpine"
    assert world.images.builds == ["alpine"]


def test_image_waiter_whose_token_is_set_leaves_the_queue_at_once(world):
    world.images.gate.close()
    running = world.supervisor.submit(pull("alpine", refresh=True))
    world.images.gate.wait_reached()
    waiting = world.supervisor.submit(pull("alpine"))
    token = CancelToken()
    threading.Timer(0.02, token.cancel).start()

    with pytest.raises(BangerError) as caught:
        waiting.wait(token)

    assert caught.value.kind is ErrorKind.CANCELLED
    assert not running.answered


def test_image_waiter_whose_deadline_passes_gets_a_timeout_and_the_pull_goes_on(world):
    world.images.gate.close()
    running = world.supervisor.submit(pull("alpine"))
    hasty = world.supervisor.submit(pull("alpine"), Deadline.after(0.02))

    with pytest.raises(BangerError) as caught:
        hasty.wait()

    world.images.gate.open()
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert running.wait().name == "alpine"


def test_image_pull_that_fails_is_told_to_all_who_joined_and_not_cached(world):
    world.images.gate.close()
    world.images.failures.append(BangerError(ErrorKind.UNAVAILABLE, "registry down"))
    waiters = [world.supervisor.submit(pull("alpine")) for _ in range(3)]
    world.images.gate.wait_reached()
    eventually(lambda: all(waiter.operation for waiter in waiters), what="all are joined")
    world.images.gate.open()

    for waiter in waiters:
        with pytest.raises(BangerError, match="registry down"):
            waiter.wait()
    assert world.do(pull("alpine")).name == "alpine"


def test_image_pull_of_a_moved_tag_swaps_and_keeps_the_old_content_for_its_vms(world):
    old = world.do(pull("alpine"))
    world.do(CreateVm(new_id(), "user", VmSpec("alpine")))
    world.images.digests["alpine"] = "sha256:moved"

    new = world.do(pull("alpine", refresh=True))

    assert new.id != old.id
    assert world.store.images.by_name("alpine") == new
    assert world.layout.image_rootfs(old).exists()
    assert [image.id for image in world.store.images.nameless()] == [old.id]


def test_image_pull_of_a_moved_tag_drops_the_old_content_nobody_uses(world):
    old = world.do(pull("alpine"))
    world.images.digests["alpine"] = "sha256:moved"

    world.do(pull("alpine", refresh=True))

    assert not world.layout.image_dir(old.id).exists()
    assert world.leftovers() == []


def test_image_pull_of_content_known_under_another_name_is_linked_not_built(world):
    world.images.digests.update(one="sha256:same", two="sha256:same")

    first, second = world.do(pull("one")), world.do(pull("two"))

    assert world.images.builds == ["one"]
    assert world.layout.image_rootfs(first).stat().st_ino == world.layout.image_rootfs(second).stat().st_ino


def test_image_delete_waits_for_the_pull_of_the_same_name(world):
    image = world.do(pull("alpine"))
    world.images.digests["alpine"] = "sha256:moved"
    world.images.gate.close()
    pulling = world.supervisor.submit(pull("alpine", refresh=True))
    world.images.gate.wait_reached()
    deleting = world.supervisor.submit(DeleteImage("alpine", image.id))
    world.images.gate.open()

    assert pulling.wait().name == "alpine"
    with pytest.raises(BangerError) as caught:
        deleting.wait()
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert world.leftovers() == []


def test_image_delete_in_use_names_the_vm_and_keeps_the_files(world):
    image = world.do(pull("alpine"))
    world.do(CreateVm(new_id(), "holder", VmSpec("alpine")))

    with pytest.raises(BangerError, match="in use") as caught:
        world.do(DeleteImage("alpine", image.id))

    assert "holder" in caught.value.cause
    assert world.layout.image_rootfs(image).exists()


def test_image_pull_asked_for_after_a_queued_delete_is_not_joined_to_the_pull_before_it(world):
    image = world.do(pull("alpine"))
    world.images.digests["alpine"] = "sha256:moved"
    world.images.gate.close()
    world.supervisor.submit(pull("alpine", refresh=True))
    world.images.gate.wait_reached()
    world.supervisor.submit(DeleteImage("alpine", image.id))
    last = world.supervisor.submit(pull("alpine", refresh=True))
    world.images.gate.open()

    assert world.store.images.get(last.wait().id) is not None


def test_supervisor_answers_reads_while_pulls_run(world):
    """Reading never goes through an owner."""
    world.images.gate.close()
    for number in range(10):
        world.supervisor.submit(pull(f"image-{number}"))
    world.images.gate.wait_reached()

    assert world.store.images.all() == []
    eventually(lambda: len(world.operations.active()) == 10, what="all ten run")


def test_shutdown_cancels_what_runs_and_refuses_what_is_new(tmp_path):
    world = World(tmp_path)
    world.images.gate.close()
    running = world.supervisor.submit(pull("alpine"))
    world.images.gate.wait_reached()

    assert world.supervisor.shutdown(WAIT_S)

    with pytest.raises(BangerError) as caught:
        running.wait()
    assert caught.value.kind is ErrorKind.CANCELLED
    late = world.supervisor.submit(pull("alpine"))
    with pytest.raises(BangerError):
        late.wait()
    world.store.close()


def test_image_pull_makes_the_work_seed(world):
    image = world.do(pull("alpine"))

    assert image.has_seed
    assert world.layout.image_seed(image).read_text() == "seed"


def test_image_pull_keeps_the_seed_that_came_with_the_image(world):
    build = world.images.build

    def bundle(resolved, staging, operation):
        (staging / "seed.ext4").write_text("of the bundle")
        return build(resolved, staging, operation)

    world.images.build = bundle

    assert world.layout.image_seed(world.do(pull("alpine"))).read_text() == "of the bundle"


@pytest.mark.parametrize("kind", [ErrorKind.INVALID, ErrorKind.EXHAUSTED])
def test_home_directory_that_makes_no_seed_costs_the_seed_and_a_full_disk_the_image(world, kind):
    def seed(rootfs, target, operation):
        raise BangerError(kind, "the home directory is odd")

    world.image_tools.seed = seed
    waiter = world.supervisor.submit(pull("alpine"))

    if kind is ErrorKind.INVALID:
        assert not waiter.wait().has_seed
        notes = []
        waiter.operation.subscribe(lambda event: notes.append(event.message))
        assert "no work seed: the home directory is odd" in notes
    else:
        with pytest.raises(BangerError):
            waiter.wait()
        assert world.store.images.all() == []
    assert world.leftovers() == []
