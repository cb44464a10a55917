"""Images boot unmodified, whatever they hold: systemd, a busybox, another C library, or one single program."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support import images
from tests.support.daemon import BangerHome
from tests.support.images import TestImage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, pytest.mark.registry]

Pushed = Callable[[TestImage], str]
PID_1 = "read name < /proc/1/comm; echo $name"


@pytest.fixture
def image(home: BangerHome, pushed: Pushed, request: pytest.FixtureRequest) -> str:
    made: TestImage = request.param()
    if made.name not in {image["name"] for image in home.json("image", "list")}:
        home.run("image", "pull", pushed(made), "--name", made.name).ok()
    return made.name


@pytest.mark.slow
@pytest.mark.parametrize("image", [images.systemd], indirect=True, ids=["systemd"])
def test_systemd_boots_as_the_images_own_init_and_is_not_degraded(
    home: BangerHome, image: str, running_vm: Callable
) -> None:  # type: ignore[type-arg]
    with running_vm(image, "with-systemd", "--memory", "768M") as vm:
        eventually(lambda: home.guest(vm, PID_1).text == "systemd\n", 60, "systemd has begun")
        state = eventually(lambda: _settled_state(home, vm), 120, "systemd to have started everything")
        failed = home.run("vm", "exec", vm, "--", "systemctl", "--failed", "--no-legend")
        assert state == "running", failed.text
        assert home.guest(vm, "hostname").text == f"{vm}\n"
        spread = ["sh", "-c", "setsid sleep 86399 & (setsid sleep 86399 &) ; sleep 86399"]
        assert home.run("vm", "exec", "--timeout", "2s", vm, "--", *spread).code == 124
        left = home.guest(vm, "grep -la 8639[9] /proc/[0-9]*/cmdline; cat /proc/self/cgroup; ulimit -n").text
        assert re.fullmatch(r"0::/banger/[0-9a-z-]+\n1048576\n", left)
        for command in ("kill -9 -1", "true"):  # which kills the agent too; nobody but an init starts one
            lost = home.run("vm", "exec", vm, "--", "sh", "-c", command)
            assert lost.code not in (0, 137), str(lost)
            assert "banger vm restart" in lost.errors
        home.run("vm", "stop", vm).ok()
        shown = home.json("vm", "show", vm)
        assert (shown["state"], shown["exit_reason"]) == ("stopped", "requested")


@pytest.mark.parametrize("image", [images.systemd], indirect=True, ids=["systemd"])
def test_init_none_keeps_systemd_from_running(home: BangerHome, image: str) -> None:
    result = home.run("vm", "run", "--rm", "--init", "none", image, "--", "sh", "-c", PID_1).ok()
    assert result.text.strip() != "systemd"


@pytest.mark.parametrize("init", ["auto", "none"])
@pytest.mark.parametrize("image", [images.busybox], indirect=True, ids=["busybox"])
def test_image_with_only_a_busybox_runs_a_shell_of_its_own(home: BangerHome, image: str, init: str) -> None:
    result = home.run("vm", "run", "--rm", "--init", init, image, "--", "sh", "-c", "ls /bin | wc -l; id -u").ok()
    applets, uid = result.text.split()
    assert (int(applets) > 10, uid) == (True, "0")


@pytest.mark.parametrize("image", [images.busybox], indirect=True, ids=["busybox"])
def test_init_image_of_an_image_without_init_fails_and_says_why(home: BangerHome, image: str) -> None:
    result = home.run("vm", "run", "--rm", "--init", "image", image, "--", "true")
    assert result.code in (125, 9, 7), str(result)
    assert "/sbin/init" in result.errors
    assert home.leftovers() == []


@pytest.mark.parametrize("image", [images.scratch], indirect=True, ids=["scratch"])
def test_image_of_one_static_program_runs_it(home: BangerHome, image: str, running_vm: Callable) -> None:  # type: ignore[type-arg]
    with running_vm(image, "from-scratch") as vm:
        assert home.run("vm", "exec", vm, "--", "/hello").ok().text == images.HELLO
        assert home.run("vm", "exec", vm, stdin=b"echo $((6 * 7))").ok().text == "42\n", "exec runs no entrypoint"
        assert home.run("vm", "exec", vm, "--", "sh").code == 127


@pytest.mark.parametrize("image", [images.musl], indirect=True, ids=["musl"])
def test_image_with_another_c_library_boots(home: BangerHome, image: str) -> None:
    result = home.run(
        "vm", "run", "--rm", image, "--", "sh", "-c", "/lib/ld-musl-x86_64.so.1 2>&1 | /bin/busybox head -n 1"
    )
    assert result.ok().text.startswith("musl libc")


def _settled_state(home: BangerHome, vm: str) -> str:
    """What systemd says of itself once it is through; empty while it starts."""
    state = home.run("vm", "exec", vm, "--", "systemctl", "is-system-running").text.strip()
    return state if state in ("running", "degraded", "maintenance") else ""
