from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.file_scheduling import FileScheduling

#: As the workers have sorted them: what takes long first.
FILES = ["boots", "long", "middle", "short", "shorter", "shortest"]
TESTS = [f"{file}::{number}" for file in FILES for number in range(3)]


class Worker:
    """Notes what it is to run."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.files: list[str] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.files += dict.fromkeys(TESTS[index].partition("::")[0] for index in indices)

    def shutdown(self) -> None:
        """It may end when it has done what it has."""


@pytest.fixture
def workers() -> list[Worker]:
    return [Worker(f"gw{number}") for number in range(3)]


@pytest.fixture
def scheduling(workers: list[Worker]) -> FileScheduling:
    option = SimpleNamespace(loadscopereorder=True)
    config: Any = SimpleNamespace(getvalue=lambda _: ["popen"] * len(workers), option=option)
    scheduling = FileScheduling(config, None, 2)
    for worker in workers:
        scheduling.add_node(worker)
    for worker in workers:
        scheduling.add_node_collection(worker, TESTS)
    scheduling.schedule()
    return scheduling


def test_worker_beyond_the_processors_begins_with_what_is_light(
    scheduling: FileScheduling, workers: list[Worker]
) -> None:
    assert [worker.files for worker in workers] == [["boots"], ["long"], ["shortest"]]
    for worker, test in ((2, "shortest"), (0, "boots"), (2, "shorter"), (0, "middle")):
        for number in range(3):
            scheduling.mark_test_complete(workers[worker], TESTS.index(f"{test}::{number}"))
    assert [worker.files for worker in workers] == [["boots", "middle"], ["long"], ["shortest", "shorter", "short"]]
    assert not scheduling.workqueue


def test_worker_that_has_just_begun_is_given_nothing_when_another_ends_in_a_test(
    scheduling: FileScheduling, workers: list[Worker]
) -> None:
    another = Worker("gw3")
    scheduling.add_node(another)
    assert scheduling.remove_node(workers[0]) == "boots::0"
    assert another.files == []
    scheduling.add_node_collection(another, TESTS)
    scheduling.schedule()
    assert another.files == ["boots"], "of which two tests are left"
