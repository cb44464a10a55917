"""The supervisor is killed again and again at random moments while VMs run and requests come: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.daemon import BangerHome
from tests.support.soak import IS_SOAK
from tests.support.waiting import eventually_empty

pytestmark = [pytest.mark.boot, pytest.mark.slow, pytest.mark.timeout(1500)]

#: 200 kills and four VMs with the soak profile, five and two with the short one.
KILLS, VMS = (200, 4) if IS_SOAK else (5, 2)
#: What is going on when the daemon is killed, besides nothing.
REQUESTS = (("vm", "list"), ("system", "reconcile"), ("vm", "stop", "other"), ("vm", "start", "other"))


@pytest.fixture
def machines(home: BangerHome, busybox: str) -> Iterator[list[str]]:
    names = [f"alive-{number}" for number in range(VMS)]
    try:
        for name in names:
            home.run("vm", "run", "--detach", "--name", name, "--memory", "256M", busybox).ok()
            home.guest(name, f"echo {name} > /dev/shm/mark").ok()
        home.run("vm", "create", "--name", "other", "--memory", "256M", busybox).ok()
        yield names
    finally:
        for name in [*names, "other"]:
            home.run("vm", "delete", "--force", name)


def test_vms_outlive_every_kill_of_the_supervisor_and_answer(home: BangerHome, machines: list[str]) -> None:
    chance = random.Random(20261126)
    pids = {name: home.json("vm", "show", name)["pid"] for name in machines}
    for number in range(KILLS):
        request = home.cli.spawn(*chance.choice(REQUESTS))
        with suppress(subprocess.TimeoutExpired):
            request.wait(chance.random())  # the moment of the kill, not a wait for something
        _kill(home)
        request.communicate(timeout=120)
        name = chance.choice(machines)
        assert home.guest(name, "cat /dev/shm/mark").ok().text == f"{name}\n", number
    found = {name: home.json("vm", "show", name) for name in machines}
    assert {name: (vm["state"], vm["pid"]) for name, vm in found.items()} == {
        name: ("running", pid) for name, pid in pids.items()
    }
    assert home.run("system", "reconcile").ok().text == "nothing to repair\n"
    assert home.leftovers() == []
    assert home.json("doctor", "--leaks") == [] or all(not one["is_leak"] for one in home.json("doctor", "--leaks"))
    running = [vm["pid"] for vm in home.json("vm", "list") if vm["state"] == "running"]
    assert sorted(home.vmms()) == sorted(running), "every VMM is that of a VM that runs"


def _kill(home: BangerHome) -> None:
    """Kill whatever daemon serves now, in whatever it does; there may be none for a moment."""
    status = home.cli.run("daemon", "status", "--json")
    if status.code != 0 or not status.json().get("pid"):
        return
    pid = status.json()["pid"]
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    assert not eventually_empty(lambda: [pid] if os.path.exists(f"/proc/{pid}") else [], 10.0)  # noqa: PTH110
