from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.core.plan import CleanupStep
from banger.host.cascade import BUSY_INTERVAL_S, BUSY_TRIES, run_all


def raising(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


def os_error(number: int) -> OSError:
    return OSError(number, errno.errorcode[number])


def failures_of(steps: list[CleanupStep]) -> list[BangerError]:
    try:
        run_all(steps, sleep=lambda _: None)
    except ExceptionGroup as group:
        ours = [failure for failure in group.exceptions if isinstance(failure, BangerError)]
        return ours if len(ours) == len(group.exceptions) else []
    return []


@given(st.lists(st.booleans(), max_size=8))
def test_every_step_runs_and_every_failure_comes_back(fails: list[bool]) -> None:
    ran: list[int] = []

    def step(number: int) -> CleanupStep:
        def run() -> None:
            ran.append(number)
            if fails[number]:
                raise ValueError("broken")

        return CleanupStep(f"thing {number}", run)

    failures = failures_of([step(number) for number in range(len(fails))])
    assert ran == list(range(len(fails)))
    assert [failure.subject for failure in failures] == [f"thing {n}" for n, failed in enumerate(fails) if failed]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESRCH, errno.ENXIO])
def test_step_whose_thing_is_gone_succeeds(number: int) -> None:
    assert failures_of([CleanupStep("tap", raising(os_error(number)))]) == []


def test_failure_names_the_thing_the_cause_and_what_comes_next() -> None:
    (failure,) = failures_of([CleanupStep("tap bg0", raising(os_error(errno.EPERM)), what_next="remove it by hand")])
    assert '"tap bg0"' in failure.message
    assert "EPERM" in failure.cause
    assert failure.hint == "remove it by hand"


def test_failure_keeps_the_kind_and_the_words_of_ours() -> None:
    (failure,) = failures_of([CleanupStep("VMM", raising(BangerError(ErrorKind.TIMEOUT, "it did not end")))])
    assert failure.kind is ErrorKind.TIMEOUT
    assert failure.cause == "it did not end"


def test_failure_of_a_nested_cascade_tells_all_of_it() -> None:
    nested = raising(ExceptionGroup("inner", [ValueError("one"), ValueError("two")]))
    (failure,) = failures_of([CleanupStep("both", nested)])
    assert failure.cause == "one; two"


@pytest.mark.parametrize("busy_times", [1, BUSY_TRIES - 1])
def test_step_that_is_busy_for_a_while_is_tried_again(busy_times: int) -> None:
    slept: list[float] = []
    left = [os_error(errno.EBUSY)] * busy_times

    def run() -> None:
        if left:
            raise left.pop()

    run_all([CleanupStep("loop0", run)], sleep=slept.append)
    assert slept == [BUSY_INTERVAL_S] * busy_times


def test_step_that_stays_busy_fails_in_the_end_and_the_others_run() -> None:
    slept: list[float] = []
    ran: list[str] = []
    steps = [CleanupStep("loop0", raising(os_error(errno.EBUSY))), CleanupStep("file", lambda: ran.append("file"))]
    with pytest.raises(ExceptionGroup) as caught:
        run_all(steps, sleep=slept.append)
    assert len(caught.value.exceptions) == 1
    assert len(slept) == BUSY_TRIES - 1
    assert ran == ["file"]


def test_step_is_left_alone_while_what_it_needs_gone_is_not() -> None:
    ran: list[str] = []
    steps = [
        CleanupStep("process", raising(ValueError("still alive"))),
        CleanupStep("disk", lambda: ran.append("disk"), needs=("process",)),
        CleanupStep("directory", lambda: ran.append("directory"), needs=("disk",)),
        CleanupStep("channel", lambda: ran.append("channel")),
    ]
    failures = failures_of(steps)
    assert ran == ["channel"]
    assert [failure.subject for failure in failures] == ["process", "disk", "directory"]
    assert "process" in failures[1].cause


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interruption_passes_on_after_the_remaining_steps(interruption: type[BaseException]) -> None:
    ran: list[str] = []
    steps = [
        CleanupStep("one", raising(ValueError("broken"))),
        CleanupStep("two", raising(interruption())),
        CleanupStep("three", lambda: ran.append("three")),
    ]
    with pytest.raises(interruption) as caught:
        run_all(steps)
    assert ran == ["three"]
    assert isinstance(caught.value.__cause__, ExceptionGroup)
