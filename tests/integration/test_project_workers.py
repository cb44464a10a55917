"""Workers: a test that hangs, or ends its process, fails alone; pytest is run on such tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.inner_pytest import run_pytest
from tests.support.leaks import mentions
from tests.support.waiting import eventually

HANGING = """
import pathlib, signal, subprocess, threading, time
import hypothesis, pytest
from hypothesis import strategies
from tests.support import time_limits

time_limits.UNWIND_S, time_limits.TEARDOWN_S = 2, 6  # no less: the others must make it on a busy machine

@pytest.fixture
def helper():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="the-helper")
    thread.start()
    yield
    stop.set()
    thread.join()

def wait_for_what_never_comes():
    threading.Event().wait()

def test_before(): pass

@pytest.mark.timeout(0.3)
def test_waits_for_ever(helper):
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            wait_for_what_never_comes()
        finally:
            child.kill()

def test_between(): pass
"""

PROPERTY = """
@pytest.mark.timeout(0.3)
@hypothesis.settings(database=None)
@hypothesis.given(strategies.integers())
def test_property_that_hangs(number):
    wait_for_what_never_comes()
"""

DEAF = """
@pytest.fixture
def stuck():
    yield
    wait_for_what_never_comes()

def test_fixture_that_hangs(stuck): pass

@pytest.mark.timeout(0.3)
def test_deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    left = subprocess.Popen(["sleep", "1000"])
    pathlib.Path("left").write_text(str(left.pid))
    wait_for_what_never_comes()
"""

LEAKING = """
import subprocess
from tests.support import leaks

leaks.PATIENCE_S = 0.2

def test_leaks(): subprocess.Popen(["sleep", "1001"])

def test_other(): pass
"""

LAST = "\ndef test_last(): pass\n"


def test_hanging_test_fails_alone_and_tells_what_its_threads_did(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, HANGING + PROPERTY + LAST)
    assert done.returncode == 1
    assert "2 failed, 3 passed in" in done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert done.stdout.count("TimeIsUp: not done within 0.3 s") >= 2
    threads = done.stdout.partition("what every thread was doing")[2]
    assert "thread the-helper:" in threads
    assert "in wait_for_what_never_comes" in threads


def test_test_that_hears_no_signal_ends_its_worker_and_fails_alone(tmp_path: Path) -> None:
    """And so does a fixture; whatever they started is ended with them."""
    done = run_pytest(tmp_path, HANGING + DEAF + LAST, "-n", "1")
    assert done.returncode == 1
    assert "3 failed, 4 passed in" in done.stdout.splitlines()[-1], done.stdout + done.stderr
    for test in ("test_deaf", "test_fixture_that_hangs"):
        assert f"crashed while running 'test_inner.py::{test}'" in done.stdout
    assert "in wait_for_what_never_comes" in done.stdout.rpartition("what every thread was doing")[2]
    left = int((tmp_path / "left").read_text())
    eventually(lambda: not mentions(left, Path("/tmp")), what="its end, though nobody may have collected it yet")


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_what_a_session_leaves_behind_fails_it_however_many_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run_pytest(tmp_path, LEAKING, *options)
    assert done.returncode == 1
    assert "the test session left behind:" in done.stdout
    assert "sleep 1001" in done.stdout
    assert "2 passed, 1 error in" in done.stdout.splitlines()[-1]


def test_tests_that_are_made_of_sets_and_random_bytes_are_the_same_in_every_worker(tmp_path: Path) -> None:
    source = (
        "import os, pytest\n"
        "@pytest.mark.parametrize('word', {str(number) for number in range(30)})\n"
        "@pytest.mark.parametrize('data', [os.urandom(8), os.urandom(os.urandom(1)[0])])\n"
        "def test_one(word, data): pass\n"
    )
    done = run_pytest(tmp_path, source, "-n", "2")
    assert "60 passed in" in done.stdout.splitlines()[-1], done.stdout + done.stderr
