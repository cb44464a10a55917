"""Real machines that are suspended: nothing of them is on the host but files, and whoever uses them wakes them."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.client import Client, path_of
from tests.support.crash_points import points_of
from tests.support.daemon import BangerHome
from tests.support.waiting import eventually

pytestmark = pytest.mark.boot

#: What only its memory has, and what its kernel makes of its random numbers.
MARK = "cat /dev/shm/mark; cat /proc/sys/kernel/random/boot_id"
UUID = "cat /proc/sys/kernel/random/uuid"


@pytest.fixture(scope="module")
def sleeper(home: BangerHome, busybox: str) -> Iterator[str]:
    """A VM with something in its memory alone."""
    home.run("vm", "run", "--detach", "--name", "sleeper", "--memory", "256M", "-p", "80", busybox).ok()
    home.guest("sleeper", "mkdir -p /dev/shm; echo here > /dev/shm/mark; echo disk > /root-file").ok()
    yield "sleeper"
    home.run("vm", "delete", "--force", "sleeper").ok()


def state(home: BangerHome, vm: str) -> str:
    return str(home.json("vm", "show", vm)["state"])


def test_suspended_vm_is_files_alone_and_a_command_wakes_it_as_it_was(home: BangerHome, sleeper: str) -> None:
    before, uuid = home.guest(sleeper, MARK).ok().text, home.guest(sleeper, UUID).ok().text
    shown = home.json("vm", "show", sleeper)
    vmms = set(home.vmms())

    home.run("vm", "suspend", sleeper).ok()

    asleep = home.json("vm", "show", sleeper)
    assert (asleep["state"], asleep["pid"]) == ("suspended", 0)
    assert 0 < asleep["suspended_bytes"] < 256 << 20
    assert len(vmms - set(home.vmms())) == 1
    held = home.run("doctor", "--leaks", "--json").json()
    assert [one for one in held if one["owner"] == sleeper or one["is_leak"]] == []
    time.sleep(2)  # the time that the guest's clock has to make up for

    told = home.guest(sleeper, f"{MARK}; {UUID}; cat /root-file").ok().text.splitlines()

    assert "\n".join(told[:2]) + "\n" == before
    assert told[2] + "\n" != uuid
    assert told[-1] == "disk"
    again = home.json("vm", "show", sleeper)
    assert (again["state"], again["ports"], again["id"]) == ("running", shown["ports"], shown["id"])
    assert clock_error_s(home, sleeper) < 0.5
    assert home.leftovers() == []


def clock_error_s(home: BangerHome, vm: str) -> float:
    """How far its clock is from this host's, at least."""
    asked = time.time()
    told = Client(home.socket).get(path_of("vms", vm, "facts"))["clock_ns"] / 1e9
    return max(asked - told, told - time.time(), 0.0)


def wakes(home: BangerHome) -> int:
    return (home.data / "daemon.log").read_text().count("vm.wake sleeper: begins")


def test_ssh_and_copies_wake_it_too(home: BangerHome, sleeper: str, tmp_path: Path) -> None:
    home.run("vm", "suspend", sleeper).ok()
    assert home.run("vm", "ssh", sleeper, "--", "cat /dev/shm/mark").ok().text == "here\n"
    home.run("vm", "suspend", sleeper).ok()
    home.run("vm", "cp", f"{sleeper}:/dev/shm/mark", str(tmp_path)).ok()
    assert (tmp_path / "mark").read_text() == "here\n"


def test_two_commands_at_once_wake_it_once(home: BangerHome, sleeper: str) -> None:
    home.run("vm", "suspend", sleeper).ok()
    before = wakes(home)
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(home.guest(sleeper, "cat /dev/shm/mark").ok().text))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["here\n", "here\n"]
    assert wakes(home) == before + 1


def test_who_comes_to_a_published_port_wakes_it_and_is_served_also_by_the_next_daemon(
    home: BangerHome, sleeper: str
) -> None:
    server = "setsid httpd -p 80 -h /dev/shm </dev/null >/dev/null 2>&1 &"
    home.guest(sleeper, f"pidof httpd >/dev/null || {{ {server} }}; sleep 1").ok()
    [port] = home.json("vm", "show", sleeper)["ports"]
    url = f"http://127.0.0.1:{port['host_port']}/mark"
    assert fetched(url) == "here\n"
    for kills in (False, True):
        home.run("vm", "suspend", sleeper).ok()
        if kills:
            home.kill_daemon()
            assert state(home, sleeper) == "suspended"
        before = wakes(home)
        assert fetched(url) == "here\n"
        assert (wakes(home), state(home, sleeper)) == (before + 1, "running")


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=120) as answer:
        return str(answer.read().decode())


def test_it_stays_suspended_when_the_daemon_is_killed_and_the_next_one_wakes_it(home: BangerHome, sleeper: str) -> None:
    home.run("vm", "suspend", sleeper).ok()
    home.kill_daemon()
    assert state(home, sleeper) == "suspended"
    assert home.guest(sleeper, "cat /dev/shm/mark").ok().text == "here\n"


def test_daemon_that_dies_while_it_suspends_leaves_it_running_or_suspended_and_whole(
    home: BangerHome, sleeper: str
) -> None:
    for point in points_of("suspend", ()):
        home.kill_daemon()
        done = home.run("vm", "suspend", sleeper, BANGER_CRASHPOINT=point)
        assert done.code != 0, f"{point} was not come by: {done}"
        assert state(home, sleeper) in ("running", "suspended"), point
        assert home.guest(sleeper, "cat /dev/shm/mark").ok().text == "here\n", point
        assert home.leftovers() == [], point


@pytest.mark.parametrize(("says", "is_kept"), [("running", True), ("stopping", False)])
def test_daemon_that_ends_with_its_host_saves_what_runs_and_the_next_one_brings_it_back(
    home: BangerHome, sleeper: str, tmp_path: Path, says: str, is_kept: bool
) -> None:
    pid = int(home.json("vm", "show", sleeper)["pid"])
    manager = tmp_path / "systemctl"
    manager.write_text(f"#!/bin/sh\necho {says}\nexit 1\n")
    manager.chmod(0o755)
    home.kill_daemon()
    path = f"{tmp_path}:{os.environ['PATH']}"
    home.run("daemon", "start", PATH=path, BANGER_DAEMON_ON_SHUTDOWN="suspend").ok()
    os.kill(daemon := home.daemon_pid(), signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{daemon}").exists(), timeout_s=60, what="the daemon has ended")
    assert (pid in home.vmms()) is is_kept
    eventually(lambda: state(home, sleeper) == "running", timeout_s=60, what="it runs")
    assert home.guest(sleeper, "cat /dev/shm/mark").ok().text == "here\n"


def test_woken_guest_whose_hook_fails_sleeps_again_and_loses_nothing(home: BangerHome, sleeper: str) -> None:
    hook = "[ -e /heard ] || { touch /heard; sync; echo not yet >&2; exit 1; }"
    script = f"#!/bin/sh\\n{hook}\\n"
    home.guest(
        sleeper,
        f"mkdir -p /etc/banger/restore.d; printf '{script}' > /etc/banger/restore.d/10-once;"
        "chmod 755 /etc/banger/restore.d/10-once",
    ).ok()
    home.run("vm", "suspend", sleeper).ok()
    refused = home.run("vm", "start", sleeper)
    assert refused.code != 0
    assert "10-once" in refused.errors
    assert "--cold" in refused.errors
    assert state(home, sleeper) == "suspended"
    assert home.guest(sleeper, "cat /dev/shm/mark; ls /heard").ok().text == "here\n/heard\n"
    assert home.leftovers() == []
