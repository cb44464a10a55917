"""VMs on taps through the real daemon, in a network namespace with a small world beyond it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import images
from tests.support.daemon import BangerHome, banger_home
from tests.support.images import TestImage
from tests.support.netlab import HOST, OTHER_SERVER, SERVER, Lab, needs_taps
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.slow, needs_taps]


@pytest.fixture(scope="module")
def tap_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack, tmp_path_factory.mktemp("lab"), bridge_netfilter=False)


@pytest.fixture(scope="module")
def inside(session_root: Path, tap_lab: Lab, pushed: Callable[[TestImage], str]) -> Iterator[BangerHome]:
    """An installation whose daemon lives in the lab's host; what it boots was pulled outside."""
    with banger_home(session_root, BANGER_VM_NETWORK="tap") as home:
        home.run("image", "pull", pushed(images.busybox()), "--name", "busybox").ok()
        home.run("kernel", "pull", "debian-cloud").ok()
        home.run("daemon", "stop").ok()
        home.cli = replace(home.cli, prefix=("nsenter", f"--net=/proc/{tap_lab.host.pid}/ns/net"))
        yield home
        assert home.run("doctor", "--leaks").code == 0


@pytest.fixture
def two(inside: BangerHome) -> Iterator[tuple[str, str]]:
    """A VM that publishes a port and one that may only look up and reach one name."""
    names = ("web", "confined")
    try:
        inside.run("vm", "run", "-d", "--name", "web", "-p", "8080:80", "--memory", "256M", "busybox").ok()
        policy = f"allow={SERVER}"
        inside.run("vm", "run", "-d", "--name", "confined", "--egress", policy, "--memory", "256M", "busybox").ok()
        yield names
    finally:
        for name in names:
            inside.run("vm", "delete", "--force", name)


def test_vms_on_taps_reach_and_are_reached_as_they_may_and_leave_nothing(
    inside: BangerHome, tap_lab: Lab, two: tuple[str, str]
) -> None:
    web, confined = two
    shown = inside.json("vm", "show", web)
    assert shown["address"].startswith("10.") or shown["address"].startswith("172.")

    assert inside.guest(web, f"nc -w 5 {SERVER} 80").ok().text == HOST, "NAT leads out"
    assert inside.guest(confined, f"nc -w 5 {SERVER} 80").ok().text == HOST
    assert inside.guest(web, f"nc -w 5 {OTHER_SERVER} 80").ok().text == HOST
    assert inside.guest(confined, f"nc -w 3 {OTHER_SERVER} 80").code != 0, "the policy holds"
    sibling = inside.json("vm", "show", confined)["address"]
    assert inside.guest(web, f"nc -w 3 {sibling} 2222").code != 0, "siblings do not see each other"

    inside.guest(web, "(while :; do echo from web | nc -l -p 80; done) >/dev/null 2>&1 </dev/null &").ok()
    assert eventually(lambda: _answer(tap_lab, "127.0.0.1", 8080), 20) == "from web\n"

    listening = inside.json("daemon", "status")["dns"]
    assert any(server.endswith(":53") for server in listening), listening
    lookup = inside.guest(web, "nslookup confined.vm").ok().text
    assert sibling in lookup, "names of VMs are known inside"

    held = {handle["kind"] for handle in inside.json("vm", "why", web)["handles"]}
    assert held >= {"tap", "address", "port", "process"}
    objects = {(one["kind"], one["is_leak"]) for one in inside.json("doctor", "--leaks")}
    assert objects >= {("tap", False), ("bridge", False), ("nft", False)}

    os.kill(inside.daemon_pid(), signal.SIGKILL)
    tap_lab.host.run("nft flush ruleset")
    inside.run("system", "reconcile").ok()
    assert inside.guest(web, f"nc -w 5 {SERVER} 80").ok().text == HOST, "rules are put back, VMs re-adopted"

    for name in two:
        inside.run("vm", "delete", "--force", name).ok()
    assert inside.json("doctor", "--leaks") == []
    assert tap_lab.host.run("nft list ruleset") == ""
    assert "bt" not in tap_lab.host.run("ls /sys/class/net")


def _answer(lab: Lab, address: str, port: int) -> str:
    try:
        return lab.host.fetch(address, port)
    except (TimeoutError, OSError):
        return ""


def test_egress_policy_that_nobody_would_enforce_is_refused(inside: BangerHome) -> None:
    refused = inside.run("vm", "create", "--network", "slirp", "--egress", "none", "busybox")
    assert refused.code == 2
    assert "--network user" in refused.errors
