"""Session-wide rules: boots can be left out, and nothing may stay behind on the host."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support import surroundings
from tests.support.leaks import SESSION_VARIABLE, HostState, leaks_since, stray_threads
from tests.support.sessions import PLACE, ROOT, SessionRoot, sweep_dead_sessions

pytest_plugins = (
    "tests.support.tools",
    "tests.support.time_limits",
    "tests.support.side_by_side",
    "tests.support.firecracker",
)

#: Seconds for a test that boots something: the first of them also makes the image that all of them boot.
BOOT_LIMIT_S = 400

#: What was on the host when the session began.
_before = pytest.StashKey[HostState]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-boot", action="store_true", help="leave out tests that start virtual machines")


def pytest_configure(config: pytest.Config) -> None:
    sweep_dead_sessions()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(PLACE))
    given = getattr(config, "workerinput", {}).get("session_root")
    root = config.stash[ROOT] = SessionRoot(Path(given)) if given else SessionRoot.make()
    surroundings.settle(root.path / "home")
    # Told to end, put everything away first, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ[SESSION_VARIABLE] = root.path.name
    os.environ["TMPDIR"] = str(root.path / "tmp")
    tempfile.tempdir = None
    for variable in [name for name in os.environ if name.startswith("BANGER_") and name != SESSION_VARIABLE]:
        del os.environ[variable]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Look before there is a first test, whose time this would take: on a busy host it is long."""
    session.config.stash[_before] = HostState.now(session.config.stash[ROOT].path)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[ROOT].close()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing that collecting makes is garbage: it is not searched for any, neither now nor in each test that does."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--no-boot"):
        boots = [item for item in items if item.get_closest_marker("boot")]
        config.hook.pytest_deselected(items=boots)
        items[:] = [item for item in items if item not in boots]
    for item in items:
        if item.get_closest_marker("boot") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BOOT_LIMIT_S))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_on_the_host(pytestconfig: pytest.Config, session_root: Path) -> Iterator[None]:
    """Fail the session with a list of what it left: processes, loop devices, mounts, taps, temporary files."""
    yield
    left = leaks_since(pytestconfig.stash[_before], session_root)
    assert not left, "the test session left behind:\n  " + "\n  ".join(left)


@pytest.fixture(autouse=True)
def no_stray_threads() -> Iterator[None]:
    """Fail a test that leaves a thread running."""
    before = threading.enumerate()
    yield
    stray = stray_threads(before)
    assert not stray, f"the test left threads running: {', '.join(stray)}"


@pytest.fixture(scope="session")
def session_root(pytestconfig: pytest.Config) -> Path:
    """The session's own directory: short path, ``tmp`` in it is everybody's ``TMPDIR``."""
    return pytestconfig.stash[ROOT].path
