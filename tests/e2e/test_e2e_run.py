"""`vm run` from nothing to a command's exit code, and what it leaves behind or does not."""

from __future__ import annotations

import time

import pytest

from tests.support import images
from tests.support.bootstrapped import check_debian
from tests.support.daemon import BangerHome
from tests.support.programs import missing_programs

pytestmark = pytest.mark.boot


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(missing_programs("mmdebstrap")), reason="mmdebstrap is not installed")
def test_first_run_of_debian_needs_nothing_and_the_second_no_download(fresh_home: BangerHome) -> None:
    """The first command anybody types: no daemon, no image, no kernel, no registry."""
    command = ["vm", "run", "debian", "--", "sh", "-c", "echo hello from $(uname -sr); . /etc/os-release; echo $ID"]
    started = time.monotonic()
    first = fresh_home.run(*command, timeout_s=500).ok()
    first_s = time.monotonic() - started
    assert first.text.startswith("hello from Linux ")
    assert first.text.splitlines()[1] in ("debian", "ubuntu")
    (image,) = fresh_home.json("image", "list")
    assert image["source"].startswith("mmdebstrap:")
    check_debian(fresh_home.data / "images" / image["id"] / "rootfs.ext4")

    started = time.monotonic()
    assert fresh_home.run(*command).ok().output == first.output
    assert time.monotonic() - started < first_s / 3
    assert [image["id"]] == [one["id"] for one in fresh_home.json("image", "list")]
    assert fresh_home.leftovers() == []


def test_run_with_rm_leaves_no_vm_and_no_process(home: BangerHome, busybox: str) -> None:
    result = home.run(
        "vm", "run", "--rm", "--name", "brief", busybox, "--", "sh", "-c", "echo out; echo err >&2; exit 42"
    )
    assert (result.code, result.output) == (42, b"out\n")
    assert "err\n" in result.errors
    assert "brief" not in {vm["name"] for vm in home.json("vm", "list")}
    assert home.leftovers() == []


def test_run_shows_plain_steps_on_standard_error_when_piped(home: BangerHome, busybox: str) -> None:
    result = home.run("vm", "run", "--rm", busybox, "--", "true").ok()
    assert result.output == b""
    assert "\x1b" not in result.errors
    assert "\r" not in result.errors


def test_ctrl_c_at_a_terminal_ends_the_guest_command_and_the_vm(home: BangerHome, busybox: str) -> None:
    script = "echo ready; sleep 1000"
    with home.cli.terminal("vm", "run", "--rm", "--name", "interrupted", busybox, "--", "sh", "-c", script) as screen:
        screen.expect("ready", 120)
        screen.type("\x03")
        assert screen.wait() == 130
    assert "interrupted" not in {vm["name"] for vm in home.json("vm", "list")}


def test_two_vms_run_at_once_and_differ(home: BangerHome, busybox: str) -> None:
    names = ("left", "right")
    started = [home.cli.spawn("vm", "run", "--detach", "--name", name, busybox) for name in names]
    try:
        for process in started:
            output, errors = process.communicate(timeout=240)
            assert process.returncode == 0, output + errors
        for name in names:
            assert home.guest(name, "echo $0 > /mine; uname -n").ok().text.strip() == name
            assert home.guest(name, "ls /mine").code == 0
        states = {vm["name"]: vm["state"] for vm in home.json("vm", "list")}
        assert {states[name] for name in names} == {"running"}
        assert len({home.json("vm", "show", name)["pid"] for name in names}) == 2
    finally:
        home.run("vm", "delete", "--force", *names)


@pytest.mark.registry
def test_vm_of_an_image_never_pulled_is_fetched_by_reference(home: BangerHome, busybox: str, pushed: object) -> None:
    assert callable(pushed)
    reference = pushed(images.scratch())
    assert home.run("vm", "run", "--rm", reference).ok().text == images.HELLO
