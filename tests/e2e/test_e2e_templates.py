"""Templates of real machines: a VM that goes on from one is as one that has booted, only sooner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.daemon import BangerHome, banger_home
from tests.support.images import TestImage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, pytest.mark.timeout(600)]

#: What tells a machine from others, a line each, and random numbers that its kernel makes now.
WHO = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid /proc/sys/kernel/random/uuid"


@pytest.fixture(scope="module")
def home(session_root: Path, pushed: Callable[[TestImage], str]) -> Iterator[BangerHome]:
    """An installation that makes templates, with a small image."""
    with banger_home(session_root, BANGER_RUN_TEMPLATES="auto") as own:
        own.run("image", "pull", pushed(images.busybox()), "--name", "busybox").ok()
        yield own


def started(home: BangerHome, name: str, *options: str, command: tuple[str, ...] = ()) -> dict[str, Any]:
    words = ("--", *command) if command else ()
    home.run("vm", "run", "--detach", "--name", name, "--memory", "256M", *options, "busybox", *words).ok()
    shown: dict[str, Any] = home.json("vm", "show", name)
    return shown


def seconds(vm: dict[str, Any]) -> float:
    return max(step["started_s"] + step["duration_s"] for step in vm["timings"])


def template_bytes(home: BangerHome) -> int:
    return int(home.json("system", "df")["templates_bytes"])


def test_third_start_goes_on_from_a_template_as_a_machine_of_its_own(home: BangerHome) -> None:
    cold = started(home, "first")
    home.guest("first", "echo secret > /root-file; echo secret > /dev/shm/secret").ok()
    home.run("vm", "delete", "--force", "first").ok()
    assert template_bytes(home) == 0
    second = started(home, "second")
    assert (cold["from_template"], second["from_template"]) == ("", "")
    eventually(lambda: template_bytes(home) > 0, 300, "a template is made")
    assert [vm["name"] for vm in home.json("vm", "list")] == ["second"]

    serve = ("sh", "-c", 'echo "$GREETING $(pwd) $(id -u)" > /said; exec sleep 1000')
    third = started(
        home, "third", "--env", "GREETING=hello", "--workdir", "/srv/here", "--hostname", "own", command=serve
    )
    fourth = started(home, "fourth")
    for vm in (third, fourth):
        assert vm["from_template"], vm
        assert seconds(vm) < seconds(cold)
    told = [home.guest(vm, WHO).ok().text.splitlines() for vm in ("second", "third", "fourth")]
    assert all(len(set(lines)) == 3 for lines in zip(*told, strict=True)), told
    assert eventually(lambda: home.guest("third", "cat /said 2>/dev/null").text, 60, "its command runs") == (
        "hello /srv/here 0\n"
    )
    assert [home.guest(vm, "hostname").text for vm in ("third", "fourth")] == ["own\n", "fourth\n"]
    assert home.guest("third", 'echo "$GREETING"').text == "hello\n"
    assert home.guest("third", "ls /root-file /dev/shm/secret 2>/dev/null").text == ""
    now = float(home.guest("fourth", "date +%s").text)
    assert abs(now - time.time()) < 5
    assert f"from template  {third['from_template']}" in " ".join(home.run("vm", "show", "third").ok().text.split("\t"))

    assert started(home, "boots", "--cold")["from_template"] == ""
    home.run("vm", "restart", "third").ok()
    assert home.json("vm", "show", "third")["from_template"] == ""
    assert home.guest("third", 'echo "$GREETING $(hostname)"').text == "hello own\n"

    home.run("system", "prune", "--all").ok()
    assert template_bytes(home) == 0
    assert home.guest("fourth", "echo on").text == "on\n"  # whoever runs needs it no more
    home.run("vm", "delete", "--force", "second", "third", "fourth", "boots").ok()
    assert home.leftovers() == []
