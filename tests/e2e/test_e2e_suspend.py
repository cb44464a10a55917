"""Real machines that are suspended: nothing of them is on the host but files, and whoever uses them wakes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from banger.client import Client, path_of
from tests.support.crash_points import points_of
from tests.support.daemon import BangerHome

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
