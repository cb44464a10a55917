"""The supervisor: crashes, backoff, giving up, passivation."""

from __future__ import annotations

import time

import pykka
import pytest

from banger.actors.messages import OwnerKind, PullImage
from banger.core.backoff import Backoff
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import ImageRequest
from tests.support.fakes import Gate, ScriptedOwner, World
from tests.support.waiting import eventually


def wish(name: str, reference: str = "x") -> PullImage:
    return PullImage(name, ImageRequest(reference))


@pytest.fixture
def gate():
    return Gate(is_open=False)


@pytest.fixture
def world(tmp_path, gate):
    def work(command, operation):
        if command.request.reference == "bug":
            raise ZeroDivisionError("injected")
        if command.request.reference == "gate":
            gate.pass_through(operation)
        return command.name

    class Owner(ScriptedOwner):
        pass

    Owner.work = staticmethod(work)
    world = World(tmp_path, owners=dict.fromkeys(OwnerKind, Owner))
    yield world
    gate.open()
    world.stop()


def test_owner_that_crashes_answers_its_asker_first(world):
    with pytest.raises(BangerError) as caught:
        world.do(wish("a", "bug"))

    assert caught.value.kind is ErrorKind.INTERNAL
    assert "ZeroDivisionError" in caught.value.cause


def test_owner_that_crashes_is_replaced_and_its_queue_delivered(world):
    world.supervisor.submit(wish("a", "bug"))
    later = [world.supervisor.submit(wish("a", f"ok-{number}")) for number in range(3)]

    assert [waiter.wait() for waiter in later] == ["a", "a", "a"]


def test_owner_that_crashes_takes_no_other_owner_down(world, gate):
    busy = world.supervisor.submit(wish("b", "gate"))
    gate.wait_reached()
    with pytest.raises(BangerError):
        world.do(wish("a", "bug"))
    gate.open()

    assert busy.wait() == "b"


def test_owner_that_crashed_is_restarted_only_after_its_backoff(tmp_path, world, gate):
    """What was queued behind the crash waits for it; other names do not."""
    world.backoff = Backoff(first_s=0.4, jitter=lambda: 1.0)
    world.restart()
    crashing = world.supervisor.submit(wish("a", "bug"))
    queued = world.supervisor.submit(wish("a", "fine"))
    with pytest.raises(BangerError):
        crashing.wait()
    crashed_at = time.monotonic()

    assert world.do(wish("b", "fine")) == "b"
    assert not queued.answered
    assert queued.wait() == "a"
    assert time.monotonic() - crashed_at >= 0.35


def test_owner_that_keeps_crashing_is_given_up_with_a_reason(world):
    for _ in range(6):
        with pytest.raises(BangerError) as caught:
            world.do(wish("a", "bug"))
    eventually(lambda: _refused(world, "a"), what="the name is refused")

    with pytest.raises(BangerError) as caught:
        world.do(wish("a", "fine"))

    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "injected" in caught.value.cause
    assert world.do(wish("other", "fine")) == "other"


def _refused(world, name):
    try:
        world.do(wish(name, "fine"))
    except BangerError as error:
        return error.kind is ErrorKind.UNAVAILABLE
    return False


def test_owner_with_nothing_to_do_is_stopped(world):
    for number in range(20):
        world.do(wish(f"name-{number}"))

    eventually(lambda: len(pykka.ActorRegistry.get_by_class(ScriptedOwner)) == 0, what="all owners are passivated")


def test_operation_cancelled_while_queued_is_answered_at_once_and_skipped(world, gate):
    world.supervisor.submit(wish("a", "gate"))
    gate.wait_reached()
    queued = world.supervisor.submit(wish("a", "later"))
    eventually(lambda: queued.operation is not None, what="it is queued")

    queued.operation.cancel("not wanted")

    with pytest.raises(BangerError, match="not wanted"):
        queued.wait()
    assert queued.operation.steps == ()
