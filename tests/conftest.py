"""Session-wide rules: frozen clocks spare pykka, boots can be left out, and nothing may stay behind on the host."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import freezegun
import hypothesis
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from tests.support.leaks import SESSION_VARIABLE, HostState, leaks_since, stray_threads, sweep_dead_sessions

#: Short, because paths of Unix sockets below it must stay under 108 bytes. The same for every helper process.
SESSION_ROOT = Path(tempfile.mkdtemp(prefix=f"bgt-{os.getpid()}-", dir="/tmp"))
#: Seconds that putting a test's fixtures away may take.
TEARDOWN_LIMIT_S = 180

# A frozen monotonic clock would keep `ask(timeout=…)` from ever timing out.
freezegun.configure(extend_ignore_list=["pykka"])  # type: ignore[attr-defined]  # missing in freezegun's stubs

hypothesis.settings.register_profile("short", max_examples=60, deadline=None)
hypothesis.settings.register_profile("soak", max_examples=3000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-boot", action="store_true", help="leave out tests that start virtual machines")


def pytest_configure() -> None:
    # Told to end, put everything away first, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep_dead_sessions(SESSION_ROOT)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    SESSION_ROOT.chmod(0o711)
    (SESSION_ROOT / "tmp").mkdir()
    (SESSION_ROOT / "tmp").chmod(0o1777)
    os.environ[SESSION_VARIABLE] = SESSION_ROOT.name
    os.environ["TMPDIR"] = str(SESSION_ROOT / "tmp")
    tempfile.tempdir = None
    for variable in [name for name in os.environ if name.startswith("BANGER_") and name != SESSION_VARIABLE]:
        del os.environ[variable]


def pytest_unconfigure() -> None:
    shutil.rmtree(SESSION_ROOT, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--no-boot"):
        boots = [item for item in items if item.get_closest_marker("boot")]
        config.hook.pytest_deselected(items=boots)
        items[:] = [item for item in items if item not in boots]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """End a session whose fixtures hang: pytest-timeout lets go of a test as soon as it has failed."""
    stderr = item.config.stash[fault_handler_stderr_fd_key]  # the real one, which is not captured
    faulthandler.dump_traceback_later(TEARDOWN_LIMIT_S, exit=True, file=stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", autouse=True)
def nothing_left_on_the_host() -> Iterator[None]:
    """Fail the session with a list of what it left: processes, loop devices, mounts, taps, temporary files."""
    before = HostState.now(SESSION_ROOT)
    yield
    left = leaks_since(before, SESSION_ROOT)
    assert not left, "the test session left behind:\n  " + "\n  ".join(left)


@pytest.fixture(autouse=True)
def no_stray_threads() -> Iterator[None]:
    """Fail a test that leaves a thread running."""
    before = threading.enumerate()
    yield
    stray = stray_threads(before)
    assert not stray, f"the test left threads running: {', '.join(stray)}"


@pytest.fixture(scope="session")
def session_root() -> Path:
    """The session's own directory: short path, ``tmp`` in it is everybody's ``TMPDIR``."""
    return SESSION_ROOT
