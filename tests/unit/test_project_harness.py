"""The tests' own tools notice what they are there to notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import run as bench_run
from bench.measure import Comparison, interleaved, table
from tests.support.command import PROJECT
from tests.support.elf import static_hello
from tests.support.leaks import HostState, leaks_since, note_installation, session_processes, stray_threads, taps
from tests.support.sessions import SessionRoot, processes_of, sweep_dead_sessions
from tests.support.waiting import eventually


def test_process_left_running_is_a_leak_until_it_ends(session_root: Path) -> None:
    before = HostState.now(session_root)
    with subprocess.Popen(["sleep", "60"]) as left:
        try:
            eventually(lambda: left.pid in dict(session_processes(session_root)), what="its command line")
            assert f"process {left.pid}: sleep 60" in leaks_since(before, session_root, timeout_s=0.1)
        finally:
            left.kill()
    assert left.pid not in dict(session_processes(session_root))


def test_temporary_file_left_in_the_session_is_a_leak(session_root: Path) -> None:
    before = HostState.now(session_root)
    left = session_root / "tmp" / "left"
    left.mkdir()
    try:
        assert f"file {left}" in leaks_since(before, session_root, timeout_s=0.1)
    finally:
        left.rmdir()


def test_tap_is_a_leak_unless_it_is_known_to_be_somebody_elses(tmp_path: Path) -> None:
    """Other installations make and leave taps on this host while the tests run; so do other sessions of tests."""
    alias = "banger {} aaaaaaaaaaaa 2026-11-28T00:00:00Z\n"
    # Named as no other test names a tap: whether somebody has it open is asked of the whole host.
    bare, own, foreign = "harness-bare", "harness-own", "harness-others"
    taps_by_alias = {bare: "\n", own: alias.format("0123456789ab"), foreign: alias.format("ba9876543210")}
    for name, said in taps_by_alias.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "tun_flags").write_text("0x1002\n")
        (tmp_path / name / "ifalias").write_text(said)
    (tmp_path / "lo").mkdir()
    (tmp_path / "installation-id").write_text("0123456789ab\n")
    note_installation(tmp_path, tmp_path / "installation-id")
    assert set(taps(tmp_path, tmp_path)) == {bare, own}


def test_session_that_died_is_swept_and_one_that_lives_is_spared(session_root: Path) -> None:
    alive, dead = SessionRoot.make(), SessionRoot.make()
    memories = [(root.path / "memory").resolve(strict=True) for root in (alive, dead)]
    dead.abandon()
    try:
        with subprocess.Popen(["sleep", "60"], env={"TMPDIR": str(dead.path / "tmp")}) as left:
            eventually(lambda: left.pid in processes_of(dead.path), what="its environment")
            sweep_dead_sessions()
            assert left.wait(10) == -signal.SIGKILL
        assert (alive.path.exists(), dead.path.exists(), session_root.exists()) == (True, False, True)
        assert [memory.exists() for memory in memories] == [True, False]
    finally:
        alive.close()
    assert not alive.path.exists()
    assert not memories[0].exists()


def test_thread_left_running_is_a_leak_and_a_daemon_thread_is_not() -> None:
    before, stop = threading.enumerate(), threading.Event()
    left = threading.Thread(target=stop.wait, name="left")
    threads = [left, threading.Thread(target=stop.wait, name="daemonic", daemon=True)]
    for thread in threads:
        thread.start()
    try:
        assert stray_threads(before, timeout_s=0.05) == ["left"]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert stray_threads(before) == []


def test_eventually_fails_with_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"the answer; last value 0"):
        eventually(lambda: 0, timeout_s=0.05, what="the answer")


def test_hand_made_program_runs(tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_bytes(static_hello("good day\n"))
    program.chmod(0o755)
    try:
        done = subprocess.run([program], capture_output=True, check=True)
    except OSError as error:
        pytest.skip(f"this host runs no x86-64 programs: {error}")
    assert done.stdout == b"good day\n"


def test_interleaved_runs_sides_in_turn_and_drops_the_first_round() -> None:
    calls: list[str] = []
    times = {"a": iter([9.0, 1.0, 5.0, 2.0, 4.0, 3.0]), "b": iter([0.0, 7.0, 7.0, 7.0, 7.0, 7.0])}

    def side(name: str) -> float:
        calls.append(name)
        return next(times[name])

    assert interleaved({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=1) == {"a": 3.0, "b": 7.0}
    assert calls == ["a", "b"] * 6


def test_comparison_tells_ratio_and_whether_the_promise_is_kept() -> None:
    ratio = Comparison("quick", ours=1.0, peer=4.0, limit=0.25)
    difference = Comparison("added", ours=5.4, peer=5.0, limit=0.3, limit_is_difference=True)
    assert (ratio.met, difference.met) == (True, False)
    assert ratio.to_dict() == {
        "name": "quick", "ours": 1.0, "peer": 4.0, "ratio": 0.25, "bar": "ratio <= 0.25", "unit": "s",
    }  # fmt: skip
    assert "added  5.400 s  5.000 s  1.08   ours - peer <= 0.3 s  NO" in table([ratio, difference])
    assert difference.complaint == "not met: added: ours - peer <= 0.3 s, it is 0.4 s"


def test_bench_that_cannot_be_run_keeps_no_other_from_it_and_fails_the_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(root: Path, rounds: int) -> Iterator[Comparison]:
        yield Comparison("slow", ours=5.0, peer=1.0, limit=2.0)
        raise RuntimeError("no such peer")

    good = Comparison("good", ours=1.0, peer=1.0, limit=2.0)
    monkeypatch.setattr(bench_run, "BENCHES", {"broken": broken, "fine": lambda root, rounds: [good]})
    monkeypatch.setattr(bench_run, "LATEST", tmp_path / "latest.json")
    monkeypatch.setattr(sys, "argv", ["bench"])
    assert bench_run.main() == 1
    said = capsys.readouterr().out
    assert "\ngood " in said
    assert said.splitlines()[-2:] == ["not measured: broken: no such peer", "not met: slow: ratio <= 2, it is 5"]


def test_surroundings_are_put_right_for_this_process_and_its_children(tmp_path: Path) -> None:
    """As after ``nohup make test &`` in a shell with another locale, umask and a blocked signal."""
    script = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.support.surroundings import settle
settle(Path(sys.argv[1]))
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
os.kill(os.getpid(), signal.SIGHUP)  # still ignored here, but not by children
print(subprocess.call(["sh", "-c", "kill -HUP $$"]), subprocess.call(["sh", "-c", "kill -TERM $$"]))
print(os.environ["HOME"], os.environ["LC_ALL"], "TAR_OPTIONS" in os.environ, oct(os.umask(0)))
print(sys.dont_write_bytecode, "PYTHONDONTWRITEBYTECODE" in os.environ)
"""
    hostile = {**os.environ, "PYTHONPATH": str(PROJECT), "LC_ALL": "tr_TR.UTF-8", "TAR_OPTIONS": "-v"}
    hostile["PYTHONDONTWRITEBYTECODE"] = "1"
    command = ["env", "--ignore-signal=INT,HUP", "--block-signal=TERM", sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=hostile, capture_output=True, text=True, check=False, umask=0o077)
    said = ["interrupted", f"-{signal.SIGHUP:d} -{signal.SIGTERM:d}", f"{tmp_path} C.UTF-8 False 0o22", "False False"]
    assert done.stdout.splitlines() == said, done.stderr
