"""Operations: joining, leaving, cancelling, steps, and who hears what."""

from __future__ import annotations

import threading

import pytest

from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.progress import EventKind, OperationState
from banger.core.waiter import Waiter


def joined(operation: Operation, deadline: Deadline | None = None) -> Waiter:
    waiter = Waiter(deadline or Deadline.never())
    assert operation.join(waiter)
    return waiter


def test_waiter_gets_the_result():
    operation = Operation("image.pull", "alpine")
    waiter = joined(operation)
    operation.begin()

    operation.succeed(42)

    assert waiter.wait() == 42


def test_waiters_all_get_the_failure_with_the_operation_id():
    operation = Operation("image.pull", "alpine")
    waiters = [joined(operation) for _ in range(3)]

    operation.fail(BangerError(ErrorKind.UNAVAILABLE, "registry down"))

    for waiter in waiters:
        with pytest.raises(BangerError) as caught:
            waiter.wait()
        assert caught.value.operation_id == operation.id


def test_last_waiter_leaving_cancels_a_queued_operation_at_once():
    operation = Operation("image.pull", "alpine")
    first, last = joined(operation), joined(operation)

    first.leave()
    assert operation.state is OperationState.QUEUED
    last.leave()

    assert operation.state is OperationState.CANCELLED
    assert not operation.begin()


def test_last_waiter_leaving_sets_the_token_of_a_running_operation():
    operation = Operation("image.pull", "alpine")
    waiter = joined(operation)
    operation.begin()

    waiter.leave()

    assert operation.token.cancelled
    assert operation.state is OperationState.RUNNING


def test_operation_that_is_being_cancelled_cannot_be_joined():
    operation = Operation("image.pull", "alpine")
    joined(operation).leave()

    assert not operation.join(Waiter())


def test_waiter_that_left_before_it_was_attached_is_detached():
    operation = Operation("image.pull", "alpine")
    waiter = Waiter()
    waiter.leave()

    operation.join(waiter)

    assert operation.token.cancelled


def test_operation_that_ends_while_a_waiter_is_attached_gives_it_the_result(monkeypatch):
    operation = Operation("image.pull", "alpine")
    operation.begin()
    waiter = Waiter()
    monkeypatch.setattr(Waiter, "attached", lambda self: operation.succeed(42))

    operation.join(waiter)

    assert waiter.wait() == 42


def test_operation_whose_last_waiter_is_just_leaving_cannot_be_joined(monkeypatch):
    operation = Operation("image.pull", "alpine")
    first, late = joined(operation), Waiter()
    shared = []
    monkeypatch.setattr(operation, "cancel", lambda reason: shared.append(operation.join(late)))

    first.leave()

    assert shared == [False], "it would be cancelled although somebody waits for it"


def test_waiter_wait_is_left_when_its_own_token_is_set():
    operation = Operation("image.pull", "alpine")
    other, waiter = joined(operation), joined(operation)
    token = CancelToken()
    token.cancel("caller gone")

    with pytest.raises(BangerError, match="caller gone"):
        waiter.wait(token)

    assert not other.answered
    assert not operation.token.cancelled


def test_waiter_wait_past_its_deadline_is_a_timeout():
    waiter = joined(Operation("image.pull", "alpine"), Deadline.after(0))

    with pytest.raises(BangerError) as caught:
        waiter.wait()

    assert caught.value.kind is ErrorKind.TIMEOUT


def test_operation_deadline_is_that_of_the_most_patient_waiter():
    operation = Operation("image.pull", "alpine")
    joined(operation, Deadline.after(5))
    joined(operation, Deadline.after(500))

    assert 400 < (operation.deadline.remaining_s or 0) <= 500

    joined(operation)
    assert operation.deadline.remaining_s is None


def test_step_is_timed_and_a_failing_one_marked():
    operation = Operation("vm.start", "web")
    operation.begin()
    with operation.step("disk") as step:
        step.update(5, 10)
    with pytest.raises(ValueError, match="broken"), operation.step("boot"):
        raise ValueError("broken")

    disk, boot = operation.steps
    assert (disk.name, disk.done, disk.total, disk.failed) == ("disk", 5, 10, False)
    assert boot.failed
    assert boot.duration_s is not None


def test_step_is_not_begun_once_cancelled():
    operation = Operation("vm.start", "web")
    operation.begin()
    operation.cancel()

    with pytest.raises(BangerError), operation.step("disk"):
        pytest.fail("the step ran")

    assert operation.steps == ()


def test_subscriber_that_comes_late_hears_what_was_told_before():
    operation = Operation("image.pull", "alpine")
    operation.begin()
    operation.note("early")
    heard: list[EventKind] = []

    operation.subscribe(lambda event: heard.append(event.kind))
    operation.succeed(None)

    assert heard == [EventKind.QUEUED, EventKind.STARTED, EventKind.NOTE, EventKind.FINISHED]


def test_subscriber_that_raises_disturbs_nobody():
    operation = Operation("image.pull", "alpine")
    heard: list[EventKind] = []

    def broken(event: object) -> None:
        raise RuntimeError("subscriber")

    operation.subscribe(broken)
    operation.subscribe(lambda event: heard.append(event.kind))
    operation.note("x")

    assert heard[-1] is EventKind.NOTE


def test_mirrored_steps_appear_in_the_parent():
    child, parent = Operation("image.pull", "alpine"), Operation("vm.create", "web")
    parent.begin()
    child.subscribe(parent.mirror)
    child.begin()
    with child.step("fetch layers") as step:
        step.update(7, 7)

    assert [(s.name, s.done) for s in parent.steps] == [("fetch layers", 7)]


def test_outcome_is_decided_once():
    operation = Operation("image.pull", "alpine")
    operation.succeed("first")
    operation.fail(BangerError(ErrorKind.INTERNAL, "late"))

    assert operation.result == "first"
    assert operation.error is None


def test_cancel_callbacks_run_once_and_the_unregistered_do_not():
    token = CancelToken()
    ran: list[str] = []
    token.on_cancel(lambda: ran.append("kept"))
    token.on_cancel(lambda: ran.append("dropped"))()

    token.cancel()
    token.cancel()
    token.on_cancel(lambda: ran.append("late"))

    assert ran == ["kept", "late"]


def test_join_and_leave_from_many_threads_cancel_exactly_when_nobody_is_left():
    for _ in range(50):
        operation = Operation("image.pull", "alpine")
        stayer = joined(operation)
        leavers = [joined(operation) for _ in range(8)]
        threads = [threading.Thread(target=waiter.leave) for waiter in leavers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not operation.token.cancelled
        stayer.leave()
        assert operation.token.cancelled
