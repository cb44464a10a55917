"""The supervisor dies at named points of what a real VM goes through; the next one mends it, and nothing is lost.

The suite of ``tests/actors/test_actors_crashes.py`` over real machines and a real network: at some of the points, in the
long form at every one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.sdk import Banger
from tests.support.crash_points import points_of
from tests.support.daemon import BangerHome
from tests.support.images import busybox_rootfs
from tests.support.soak import IS_SOAK

pytestmark = [pytest.mark.boot, pytest.mark.slow, pytest.mark.timeout(1800 if IS_SOAK else 400)]

NAME = "crashed"
#: Those of another network or launcher, of a KVM that fails, and of the process that makes links in the namespace.
NOT_HERE = (
    "vm.start:kvm-given-up",
    "vm.down:launcher-released",
    "ports.prepare:written",
    "tap.prepare:bridge-added",
    "tap.prepare:tap-added",
)


@pytest.fixture
def image(fresh_home: BangerHome, tmp_path: Path) -> str:
    fresh_home.run(
        "image", "register", "--rootfs", str(busybox_rootfs(tmp_path / "busybox.ext4")), "--name", "busy"
    ).ok()
    return "busy"


def test_vm_survives_a_supervisor_that_dies_at_any_point_of_its_life(fresh_home: BangerHome, image: str) -> None:
    home = fresh_home
    create = ("create", "--name", NAME, "--vmm", "qemu", "--memory", "128M", "-p", "80", image)
    for point in points_of("create", NOT_HERE):
        die(home, point, *create)
        if known(home):
            home.run("vm", "delete", NAME).ok()
    home.run("vm", *create).ok()
    for point in points_of("start", NOT_HERE):
        home.run("vm", "kill", NAME).ok()
        die(home, point, "start", NAME)
        check_runs(home)
    for point in points_of("stop", NOT_HERE):
        check_runs(home)
        die(home, point, "stop", NAME)
        home.run("vm", "stop", NAME).ok()
    for point in points_of("delete", NOT_HERE):
        die(home, point, "delete", NAME)
        if known(home):
            home.run("vm", "delete", NAME).ok()
        check_mended(home, point)
        home.run("vm", *create).ok()
    assert home.leftovers() == []


def die(home: BangerHome, point: str, *command: str) -> None:
    """A command of a supervisor that dies at ``point``, and what the next one makes of it."""
    home.kill_daemon()
    done = home.run("vm", *command, BANGER_CRASHPOINT=point)
    assert done.code != 0, f"{point} was not come by: {done}"
    assert home.run("daemon", "status").code != 0, f"{point} was not come by: {done}"
    check_mended(home, point)


def check_mended(home: BangerHome, point: str) -> None:
    vms = home.json("vm", "list")  # the next supervisor, which has looked at everything before it answers
    asked = Banger(home.path).client  # without a command's start for each question
    report = asked.long("POST", "/v1/system/reconcile")
    assert [report[one] for one in ("stopped", "recovered", "removed", "failed")] == [[]] * 4, point
    assert asked.get("/v1/system/objects", {"leaks": "true"}) == [], point
    assert home.vmms() == [vm["pid"] for vm in vms if vm["state"] == "running"], point
    assert [vm for vm in vms if vm["broken"]] == [], point


def check_runs(home: BangerHome) -> None:
    home.run("vm", "start", NAME).ok()
    assert home.guest(NAME, "echo here").ok().text == "here\n"


def known(home: BangerHome) -> bool:
    return any(vm["name"] == NAME for vm in home.json("vm", "list"))
