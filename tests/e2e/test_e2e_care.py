"""Looking after VMs: standing still, why one ended, what is on the host, and machines whose time is over."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.daemon import BangerHome
from tests.support.waiting import eventually

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def cared(home: BangerHome, busybox: str) -> Iterator[str]:
    """A VM that the tests of this module leave running."""
    home.run("vm", "run", "--detach", "--name", "cared", "--memory", "256M", busybox).ok()
    yield "cared"
    home.run("vm", "delete", "--force", "cared").ok()


def test_paused_guest_does_not_run_and_goes_on_where_it_was(home: BangerHome, cared: str) -> None:
    home.guest(cared, "echo kept > /dev/shm/mark").ok()
    assert home.run("vm", "pause", cared).ok()
    shown = home.json("vm", "show", cared)
    assert (shown["state"], shown["paused_by"]) == ("paused", "user")
    refused = home.run("vm", "exec", cared, "--", "true")
    assert refused.code != 0
    assert f"banger vm resume {cared}" in refused.errors
    assert "banger vm resume" in home.run("vm", "why", cared).ok().text
    home.kill_daemon()
    assert home.json("vm", "show", cared)["state"] == "paused"
    home.run("vm", "resume", cared).ok()
    assert home.guest(cared, "cat /dev/shm/mark").ok().text == "kept\n"


def test_paused_guest_is_stopped_in_an_orderly_way(home: BangerHome, cared: str) -> None:
    home.run("vm", "pause", cared).ok()
    home.run("vm", "stop", cared).ok()
    shown = home.json("vm", "show", cared)
    assert (shown["state"], shown["exit_reason"]) == ("stopped", "requested")
    home.run("vm", "start", cared).ok()


def test_why_tells_the_reason_the_evidence_and_the_next_step(home: BangerHome, cared: str) -> None:
    home.guest(cared, "echo last words > /dev/console").ok()
    os.kill(home.json("vm", "show", cared)["pid"], signal.SIGKILL)
    eventually(lambda: home.json("vm", "show", cared)["state"] == "stopped", 20, "its end to be noticed")
    why = home.json("vm", "why", cared)
    assert why["exit_reason"] in ("killed", "vmm_crash")
    assert "last words" in why["console"]
    assert why["handles"] == []
    text = home.run("vm", "why", cared).ok().text
    assert "stopped:" in text
    assert "next:" in text
    assert "start VMM" in text
    home.run("vm", "start", cared).ok()


def test_what_a_running_vm_holds_is_shown_and_nothing_of_it_is_a_leak(home: BangerHome, cared: str) -> None:
    held = {handle["kind"] for handle in home.json("vm", "why", cared)["handles"]}
    assert held >= {"process", "run_dir", "console"}
    assert home.run("doctor", "--leaks").code == 0


def test_vm_whose_time_to_live_is_over_is_gone(home: BangerHome, busybox: str) -> None:
    home.run("vm", "create", "--name", "short-lived", "--ttl", "1s", busybox).ok()
    eventually(lambda: home.run("vm", "show", "short-lived").code == 3, 30, "it to be deleted")
    assert home.leftovers() == []
