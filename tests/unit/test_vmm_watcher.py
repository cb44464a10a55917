from __future__ import annotations

import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from banger.core.models import ProcessIdentity
from banger.vmm import identity as processes
from banger.vmm.watcher import ExitWatcher
from tests.support.waiting import eventually

WAIT_S = 5.0
News = tuple[str, ProcessIdentity, int | None]
Spawn = Callable[[str], ProcessIdentity]


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def news() -> queue.Queue[News]:
    return queue.Queue()


@pytest.fixture
def watcher(news: queue.Queue[News]) -> Iterator[ExitWatcher]:
    watcher = ExitWatcher(lambda *exit_: news.put(exit_))
    yield watcher
    watcher.close()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    started: list[ProcessIdentity] = []

    def start(script: str = "kill -STOP $$") -> ProcessIdentity:
        process = subprocess.Popen(["/bin/sh", "-c", script, "banger-vm-watched"], start_new_session=True)
        process.returncode = 0
        started.append(processes.identify(process.pid, "banger-vm-watched"))
        return started[-1]

    yield start
    for identity in started:
        processes.kill(identity)
        processes.wait_gone(identity, WAIT_S)


def test_exit_of_a_watched_child_is_told_with_its_status(
    watcher: ExitWatcher, news: queue.Queue[News], spawn: Spawn
) -> None:
    identity = spawn()
    watcher.watch("one", identity)
    processes.kill(identity)
    assert news.get(timeout=WAIT_S) == ("one", identity, -signal.SIGKILL)
    assert not Path(f"/proc/{identity.pid}").exists(), "the child is not reaped"


def test_exit_before_the_watch_is_told_at_once(watcher: ExitWatcher, news: queue.Queue[News], spawn: Spawn) -> None:
    identity = spawn("exit 3")
    eventually(lambda: not processes.is_same(identity))
    watcher.watch("one", identity)
    assert news.get(timeout=WAIT_S) == ("one", identity, 3)


def test_exit_of_a_process_of_an_earlier_boot_is_told_without_status(
    watcher: ExitWatcher, news: queue.Queue[News]
) -> None:
    identity = ProcessIdentity(1, 1, "another boot", "banger-vm-watched")
    watcher.watch("one", identity)
    assert news.get(timeout=WAIT_S) == ("one", identity, None)


def test_exit_of_somebody_elses_child_is_told_without_status(watcher: ExitWatcher, news: queue.Queue[News]) -> None:
    script = "setsid sh -c 'kill -STOP $$' banger-vm-watched > /dev/null 2>&1 & echo $!"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
    eventually(lambda: b"banger-vm-watched" in Path(f"/proc/{pid}/cmdline").read_bytes())
    identity = processes.identify(pid, "banger-vm-watched")
    watcher.watch("adopted", identity)
    processes.kill(identity)
    assert news.get(timeout=WAIT_S) == ("adopted", identity, None)


def test_many_exits_are_told_once_each(watcher: ExitWatcher, news: queue.Queue[News], spawn: Spawn) -> None:
    identities = {f"vm{number}": spawn() for number in range(8)}
    for vm_id, identity in identities.items():
        watcher.watch(vm_id, identity)
    for identity in identities.values():
        processes.kill(identity)
    told = [news.get(timeout=WAIT_S) for _ in identities]
    assert {vm_id: identity for vm_id, identity, _ in told} == identities
    assert news.empty()


def test_exit_of_an_unwatched_process_is_not_told(watcher: ExitWatcher, news: queue.Queue[News], spawn: Spawn) -> None:
    quiet, loud = spawn(), spawn()
    watcher.watch("quiet", quiet)
    watcher.watch("loud", loud)
    watcher.unwatch("quiet")
    watcher.unwatch("never watched")
    for identity in (quiet, loud):
        processes.kill(identity)
        processes.wait_gone(identity, WAIT_S)
    assert news.get(timeout=WAIT_S)[0] == "loud"
    assert news.empty()


def test_watch_again_replaces_the_process(watcher: ExitWatcher, news: queue.Queue[News], spawn: Spawn) -> None:
    old, new = spawn(), spawn()
    watcher.watch("one", old)
    watcher.watch("one", new)
    processes.kill(old)
    processes.wait_gone(old, WAIT_S)
    processes.kill(new)
    assert news.get(timeout=WAIT_S)[1] == new
    assert news.empty()


def test_listener_that_fails_does_not_end_the_watch(spawn: Spawn) -> None:
    told: queue.Queue[str] = queue.Queue()

    def listener(vm_id: str, identity: ProcessIdentity, status: int | None) -> None:
        told.put(vm_id)
        raise RuntimeError("a bug")

    watcher = ExitWatcher(listener)
    try:
        for vm_id in ("one", "two"):
            identity = spawn()
            watcher.watch(vm_id, identity)
            processes.kill(identity)
            assert told.get(timeout=WAIT_S) == vm_id
    finally:
        watcher.close()


def test_listener_may_watch_the_next_process(spawn: Spawn) -> None:
    told: queue.Queue[str] = queue.Queue()
    second = spawn()

    def listener(vm_id: str, identity: ProcessIdentity, status: int | None) -> None:
        told.put(vm_id)
        if vm_id == "one":
            watcher.watch("two", second)
            processes.kill(second)

    watcher = ExitWatcher(listener)
    try:
        first = spawn()
        watcher.watch("one", first)
        processes.kill(first)
        assert [told.get(timeout=WAIT_S) for _ in range(2)] == ["one", "two"]
    finally:
        watcher.close()


def test_close_leaves_processes_alone_and_no_descriptor_behind(spawn: Spawn) -> None:
    before = descriptors()
    watcher = ExitWatcher(lambda *exit_: None)
    identity = spawn()
    watcher.watch("one", identity)
    watcher.close()
    watcher.close()
    watcher.watch("one", identity)
    assert processes.is_same(identity)
    assert descriptors() == before
    assert "exit-watcher" not in {thread.name for thread in threading.enumerate()}
