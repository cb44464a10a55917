from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from banger.core.models import ProcessIdentity
from banger.vmm import identity as processes
from tests.support.waiting import eventually

MARKER = "banger-vm-unit00000001"
Spawn = Callable[..., ProcessIdentity]


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a shell that runs ``script`` with the marker on its command line; reaped by its identity, as VMMs are."""
    started: list[ProcessIdentity] = []

    def start(script: str = "kill -STOP $$", *, marker: str = MARKER, own_session: bool = True) -> ProcessIdentity:
        process = subprocess.Popen(["/bin/sh", "-c", script, marker], start_new_session=own_session)
        process.returncode = 0
        started.append(processes.identify(process.pid, marker))
        # For a moment after exec the kernel shows an empty command line.
        eventually(lambda: not processes.is_same(started[-1]) or cmdline(process.pid))
        return started[-1]

    yield start
    for identity in started:
        processes.kill(identity)
        assert processes.wait_gone(identity, 10.0)


@example(name="a) Z 9 (b", ticks=5, threads=1)
@given(
    name=st.text(st.characters(exclude_characters="\n", exclude_categories=("Cs",)), max_size=15),
    ticks=st.integers(0, 2**63),
    threads=st.integers(1, 9),
)
def test_parse_stat_of_any_command_name_finds_the_fields(name: str, ticks: int, threads: int) -> None:
    fields = ["S", "1", "1", "77", *["0"] * 13, str(threads), "0", str(ticks), "0"]
    stat = processes.parse_stat(f"4242 ({name}) {' '.join(fields)}\n")
    assert (stat.state, stat.session, stat.threads, stat.start_ticks) == ("S", 77, threads, ticks)


@pytest.mark.parametrize(
    ("state", "threads", "gone"),
    [("S", 1, False), ("R", 4, False), ("T", 1, False), ("Z", 1, True), ("X", 1, True), ("Z", 3, False)],
)
def test_stat_of_a_process_is_gone_only_when_nothing_of_it_runs(state: str, threads: int, gone: bool) -> None:
    assert processes.ProcessStat(state, 1, threads, 1).gone is gone


def test_is_same_of_a_live_process_is_true(spawn: Spawn) -> None:
    assert processes.is_same(spawn())


@pytest.mark.parametrize(
    "change", [{"start_ticks": 1}, {"boot_id": "another"}, {"marker": "banger-vm-another"}, {"pid": 0}, {"pid": 2**22}]
)
def test_identity_that_differs_in_anything_is_never_signalled(spawn: Spawn, change: dict[str, object]) -> None:
    identity = spawn()
    other = replace(identity, **change)  # type: ignore[arg-type]
    assert not processes.is_same(other)
    assert processes.open_pidfd(other) is None
    assert not processes.kill(other)
    assert processes.wait_gone(other, 0.0)
    assert processes.is_same(identity)


def test_zombie_counts_as_gone_and_is_reaped_with_its_status(spawn: Spawn) -> None:
    identity = spawn("exit 7")
    eventually(lambda: not processes.is_same(identity))
    assert processes.wait_gone(identity, 0.0)
    assert processes.exit_status(identity) == 7
    assert not Path(f"/proc/{identity.pid}").exists()


def test_wait_gone_of_a_live_process_times_out(spawn: Spawn) -> None:
    assert not processes.wait_gone(spawn(), 0.01)


def test_kill_with_a_signal_gives_it_as_negative_status(spawn: Spawn) -> None:
    identity = spawn()
    assert processes.kill(identity, signal.SIGKILL)
    assert processes.wait_gone(identity, 5.0)
    assert processes.exit_status(identity) == -signal.SIGKILL


def test_exit_status_is_known_to_everybody_who_waited(spawn: Spawn) -> None:
    identity = spawn()
    seen: list[int | None] = []

    def wait() -> None:
        assert processes.wait_gone(identity, 5.0)
        seen.append(processes.exit_status(identity))

    waiters = [threading.Thread(target=wait) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    processes.kill(identity)
    for waiter in waiters:
        waiter.join()
    assert seen == [-signal.SIGKILL] * 4


def test_exit_status_survives_other_children_being_started(spawn: Spawn) -> None:
    """``subprocess`` reaps forgotten children whenever it starts a new one; a VMM must not be among them."""
    identity = spawn("exit 9")
    eventually(lambda: not processes.is_same(identity))
    subprocess.run(["true"], check=True)
    processes.wait_gone(identity, 0.0)
    assert processes.exit_status(identity) == 9


def test_find_of_a_marker_gives_the_session_leader_that_carries_it(spawn: Spawn) -> None:
    identity = spawn()
    assert processes.find(MARKER) == identity


def test_find_of_a_marker_that_is_only_mentioned_gives_nothing(spawn: Spawn) -> None:
    spawn(own_session=False)
    spawn(f"# {MARKER}\nkill -STOP $$", marker="another")
    assert processes.find(MARKER) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
def test_find_of_a_marker_of_another_user_counts_only_among_the_users_of_vmms(spawn: Spawn) -> None:
    become = "setpriv --reuid 2000000000 --regid 2000000000 --clear-groups"
    identity = spawn(f"exec {become} sh -c 'kill -STOP $$' {MARKER}")
    eventually(lambda: Path(f"/proc/{identity.pid}").stat().st_uid == 2_000_000_000)
    assert processes.find(MARKER) is None
    assert processes.find(MARKER, range(2_000_000_000, 2_000_000_001)) == identity


def test_identify_of_no_process_raises_lookup_error() -> None:
    with pytest.raises(ProcessLookupError):
        processes.identify(2**22, MARKER)
