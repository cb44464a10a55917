"""An image with everything odd that the field has met: it behaves in a VM as it does in a container."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.support.daemon import BangerHome, RunningVm
from tests.support.odd_image import COMMAND, push_odd_image
from tests.support.registry import LocalRegistry
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, pytest.mark.registry]

#: What `sleep` is told, so that it can be told from others.
MARK = "86399"
RUNNING = f"ps -o args | grep -c '^sleep {MARK}'"
#: In the background, detached by a new session, and by a parent that is gone.
SPREAD = f"sleep {MARK} & setsid sleep {MARK} & (setsid sh -c 'sleep {MARK} & sleep {MARK}' &) ; echo spread; "


@pytest.fixture(scope="module")
def image(home: BangerHome, registry: LocalRegistry) -> str:
    home.run("image", "pull", push_odd_image(registry, "test/odd:1"), "--name", "odd").ok()
    return "odd"


@pytest.fixture(scope="module")
def vm(image: str, running_vm: RunningVm) -> Iterator[str]:
    """Booted once for all of them."""
    with running_vm(image, "odd") as name:
        yield name


def root(home: BangerHome, vm: str, script: str) -> str:
    return home.run("vm", "exec", "--user", "root", vm, "--", "sh", "-c", script).ok().text


def logged(home: BangerHome, vm: str) -> str:
    """The console, once the image's command has written to its log."""
    shown = home.run("vm", "logs", vm).text
    return shown if "logged" in shown else ""


def count(home: BangerHome, vm: str) -> int:
    return int(home.run("vm", "exec", "--user", "root", vm, "--", "sh", "-c", RUNNING).text)


def test_command_of_the_image_runs_as_its_user_in_a_directory_that_no_layer_has(home: BangerHome, vm: str) -> None:
    expected = ["/srv/app/deep", "1001", "/home/app", "1048576", "logged"]
    assert home.run("vm", "exec", vm, "--", *COMMAND).ok().text.splitlines() == expected
    console = eventually(lambda: logged(home, vm), 30, "the image's command has logged")
    assert console.replace("\r", "").endswith("\n".join([*expected, ""]))  # of the detached run's own, at the boot
    assert root(home, vm, "stat -c '%a %u %F' /srv/app/deep /volume/data").splitlines() == ["755 0 directory"] * 2


def test_standard_streams_can_be_opened_by_name_by_the_user_who_runs(home: BangerHome, vm: str) -> None:
    script = "cat /dev/stdin; echo out >/dev/stdout; echo err >/proc/self/fd/2; echo log >>/var/log/error.log"
    done = home.run("vm", "exec", "--user", "1000", vm, "--", "sh", "-c", script, stdin=b"typed\n").ok()
    assert (done.text, done.errors) == ("typed\nout\n", "err\nlog\n")
    script = "echo ready >/dev/stderr; head -n 1 </dev/stdin >/dev/stdout; echo out >>/var/log/app.log"
    with home.cli.terminal("vm", "exec", vm, "--", "sh", "-c", script) as screen:
        screen.expect("ready\r\n")
        screen.type("typed\r")
        assert screen.wait() == 0
        assert screen.shown.splitlines() == ["ready", "typed", "typed", "out"]


@pytest.mark.parametrize("user", ["root", "app"])
def test_file_of_no_format_is_126_and_nothing_of_it_runs(home: BangerHome, vm: str, user: str) -> None:
    for program in ("/bin/foreign", "damaged", "nameless"):
        done = home.run("vm", "exec", "--user", user, vm, "--", program)
        assert (done.code, done.output) == (126, b""), program
        assert "exec format error" in done.errors
    assert home.run("vm", "exec", "--user", user, vm, "--", "named").ok().text == "named\n"


def test_names_resolve_and_the_lines_of_the_image_are_whole(home: BangerHome, vm: str) -> None:
    lines = [line.split() for line in root(home, vm, "cat /etc/hosts").splitlines()]
    assert ["10.9.8.7", "db"] in lines
    assert ["127.0.0.1", "localhost"] in lines
    assert ["::1", "localhost", "ip6-localhost", "ip6-loopback"] in lines
    assert ["127.0.1.1", vm] in lines
    for name in ("localhost", vm):
        assert "127.0." in root(home, vm, f"ping -c 1 {name}")
    assert (
        home.run("vm", "exec", vm, "--", "id").text.strip() == "uid=1001(app) gid=1001(app) groups=900(logs),1001(app)"
    )


def test_limits_are_those_of_a_container(home: BangerHome, vm: str) -> None:
    shown = home.run("vm", "exec", vm, "--", "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c; ulimit -u").ok().text
    assert shown.split() == ["1048576", "1048576", "unlimited", "unlimited"]
    settings = "cat /proc/sys/vm/max_map_count /proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert root(home, vm, settings).split() == ["1048576", "0"]


def test_timeout_ends_all_that_the_command_has_started(home: BangerHome, vm: str) -> None:
    done = home.run("vm", "exec", "--timeout", "3s", vm, "--", "sh", "-c", SPREAD + "wait")
    assert done.code == 124
    assert done.text == "spread\n"
    assert count(home, vm) == 0


def test_client_that_is_killed_takes_all_that_its_command_has_started_with_it(home: BangerHome, vm: str) -> None:
    with home.cli.spawn("vm", "exec", vm, "--", "sh", "-c", "trap '' HUP; " + SPREAD + "wait; sleep 86398") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"spread\n"
        assert count(home, vm) == 4
        client.send_signal(signal.SIGKILL)
    eventually(lambda: count(home, vm) == 0, 30, "all of it has ended")


def test_command_that_ends_by_itself_leaves_its_background_running(home: BangerHome, vm: str) -> None:
    script = f"setsid sleep {MARK} </dev/null >/dev/null 2>&1 & echo started"
    assert home.run("vm", "exec", vm, "--", "sh", "-c", script).ok().text == "started\n"
    assert count(home, vm) == 1
    assert home.run("vm", "exec", "--timeout", "1s", vm, "--", "sleep", "300").code == 124
    assert count(home, vm) == 1  # another command's end is none of its business
    root(home, vm, f"kill $(ps -o pid,args | grep '[s]leep {MARK}' | {{ read -r pid _; echo $pid; }})")
    eventually(lambda: count(home, vm) == 0, 30, "it has ended")


def restarted(home: BangerHome, name: str) -> None:
    home.run("vm", "stop", name).ok()
    home.run("vm", "start", name).ok()


@pytest.mark.parametrize("storage", ["overlay", "copy"])
def test_first_boot_does_its_work_once_and_what_the_user_writes_stays(
    home: BangerHome, image: str, running_vm: RunningVm, storage: str, request: pytest.FixtureRequest
) -> None:
    name = f"once-{storage}"
    mine = "echo nameserver 192.0.2.1 >/etc/resolv.conf; echo 192.0.2.2 mine >>/etc/hosts; rm -r /var/lib/banger"
    with running_vm(image, name, "--storage", storage) as vm:
        assert root(home, vm, "cat /etc/hostname; readlink /etc/hostname; true") == f"{vm}\n"
        assert root(home, vm, "cat /etc/hosts").count(f"\t{vm}\n") == 1
        before = root(home, vm, f"{mine}; cat /etc/resolv.conf /etc/hosts")
        restarted(home, vm)
        assert root(home, vm, "cat /etc/resolv.conf /etc/hosts") == before
        assert root(home, vm, "stat -c %F /srv/app/deep; readlink /run") == "directory\n/var/run\n"
