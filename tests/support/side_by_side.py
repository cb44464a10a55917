"""A pytest plugin: tests in worker processes side by side (pytest-xdist, ``-n auto``), long ones begun first.

A test file is a unit of work: its tests share fixtures of its module, so they stay together, and each worker is a
session of its own (``tests/support/sessions.py``) with its own shared machines. One more than there are processors takes
what is light, since machines are waited for much of the time. A worker that ends in the middle of a
test is replaced; what it left is put away, and the test has failed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.sessions import SessionRoot
from tests.support.time_limits import LAST_WORDS, TITLE

#: More that boot machines would share one disk, and memory for these, without being quicker.
MOST_LEADERS = 4
_MEMORY_OF_A_WORKER = 3 << 30

#: Tenths of a second of a test of each directory that has none of the marks.
_KINDS = {"e2e": 20, "integration": 5, "actors": 10, "contract": 2}

_roots = pytest.StashKey[dict[str, SessionRoot]]()
_last_words = pytest.StashKey[str]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The leaders, and one with light tests for the time that they wait."""
    return _leaders() + 1


def _leaders() -> int:
    """One for each processor, as far as the memory goes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _MEMORY_OF_A_WORKER, MOST_LEADERS))


def pytest_configure(config: pytest.Config) -> None:
    """Workers must find the same tests under the same names in the same order, also where they come out of sets."""
    seed = getattr(config.option, "randomly_seed", 0)
    os.environ.setdefault("PYTHONHASHSEED", str(seed % (1 << 32) if isinstance(seed, int) else 0))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are numbered: what is in them may differ, such as the time in a header of gzip, and so may their length."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files as units of work, in the order in which the workers have sorted them."""
    from tests.support.file_scheduling import FileScheduling

    return FileScheduling(config, log, _leaders())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In workers: what takes long first, so that no worker is left alone with it at the end."""
    if hasattr(config, "workerinput"):
        weights: dict[Path, int] = defaultdict(int)
        for item in items:
            weights[item.path] += _weight(item)
        items.sort(key=lambda item: -weights[item.path])  # stable: files stay together, tests in their order


def _weight(item: pytest.Item) -> int:
    """Tenths of a second, roughly, that a test of its kind takes."""
    marks = {mark.name for mark in item.iter_markers()}
    kind = next((tenths for place, tenths in _KINDS.items() if place in item.path.parts), 1)
    return 600 * ("slow" in marks and "boot" in marks) + 80 * ("boot" in marks) + 50 * ("slow" in marks) + kind


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before a worker starts: the directory of its session is made here, where somebody outlives it."""
    root = SessionRoot.make()
    node.config.stash.setdefault(_roots, {})[node.gateway.id] = root
    node.workerinput["session_root"] = str(root.path)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """After a worker has ended, in whatever way: nothing of it stays."""
    root = node.config.stash[_roots].pop(node.gateway.id)
    words = root.path / LAST_WORDS
    node.config.stash[_last_words] = words.read_text(errors="replace") if words.exists() else ""
    root.close()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Interrupted, there may be workers that nobody has seen end."""
    for root in config.stash.get(_roots, {}).values():
        root.close()


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: pytest.TestReport, sched: Any) -> None:
    """The failure of a test whose worker ended in it."""
    if words := sched.config.stash.get(_last_words, ""):
        report.sections.append((TITLE, words))
