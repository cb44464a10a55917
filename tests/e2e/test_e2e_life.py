"""The life of a VM between its first boot and its end: stop, start, logs, wait, ports, and a daemon that is killed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.daemon import BangerHome
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def living(home: BangerHome, busybox: str) -> Iterator[str]:
    """A VM that the tests of this module stop and start as they like; each finds and leaves it running."""
    home.run("vm", "run", "--detach", "--name", "living", busybox).ok()
    yield "living"
    home.run("vm", "delete", "--force", "living").ok()


def test_stop_and_start_keep_what_is_on_the_disk(home: BangerHome, living: str) -> None:
    home.guest(living, "echo kept > /root-file; mkdir -p /deep/dir").ok()
    home.run("vm", "stop", living).ok()
    assert home.json("vm", "show", living)["state"] == "stopped"
    assert home.run("vm", "stop", living).code == 0
    home.run("vm", "start", living).ok()
    assert home.guest(living, "cat /root-file; ls -d /deep/dir").ok().text == "kept\n/deep/dir\n"


def test_show_has_the_waterfall_of_the_last_start(home: BangerHome, living: str) -> None:
    shown = home.json("vm", "show", living)
    assert len(shown["timings"]) >= 3
    assert all(step["duration_s"] >= 0 for step in shown["timings"])
    text = home.run("vm", "show", living).ok().text
    assert all(step["name"][:28] in text for step in shown["timings"])  # the longest are cut


def test_name_id_and_unique_prefix_address_the_same_vm(home: BangerHome, living: str) -> None:
    vm_id = home.json("vm", "show", living)["id"]
    assert {home.json("vm", "show", query)["id"] for query in (living, "livi", vm_id, vm_id[:8])} == {vm_id}


def test_logs_hold_the_guests_console(home: BangerHome, living: str) -> None:
    home.guest(living, "echo written to the console > /dev/console").ok()
    eventually(lambda: "written to the console" in home.run("vm", "logs", living).ok().text, what="the console's line")
    last = home.run("vm", "logs", "--tail", "1", living).ok().text
    assert last.count("\n") <= 1


def test_logs_follow_ends_when_the_reader_goes_away(home: BangerHome, living: str) -> None:
    with home.cli.spawn("vm", "logs", "--follow", "--tail", "0", living) as following:
        seen = threading.Event()
        reader = threading.Thread(target=lambda: following.stdout and following.stdout.readline() and seen.set())
        reader.start()
        eventually(
            lambda: home.guest(living, "echo followed > /dev/console").ok() and seen.wait(0.5), 30, "a followed line"
        )
        following.terminate()
        reader.join(10)
    assert home.json("vm", "show", living)["state"] == "running"


def test_wait_returns_when_the_guest_powers_itself_off(home: BangerHome, living: str) -> None:
    with home.cli.spawn("vm", "wait", living) as waiting:
        home.run("vm", "exec", "--timeout", "20s", living, "--", "sh", "-c", "kill -USR2 1")
        waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    shown = home.json("vm", "show", living)
    assert (shown["state"], shown["exit_reason"]) == ("stopped", "guest_poweroff")
    home.run("vm", "start", living).ok()


def test_published_ports_reach_the_guest_tell_refusals_and_survive_its_reboot(home: BangerHome, busybox: str) -> None:
    """One boot of a guest without a network, and a reboot, for all that a published port does.

    TCP over both families, whom the server sees, a refusal, a random port, a forwarder and an agent that are killed.
    """
    port = free_port()
    published = [f"{port}:7777", f"[::1]:{port}:7777", f"{port}:7778/udp", "7779"]
    options = [word for one in published for word in ("-p", one)]
    home.run("vm", "run", "--detach", "--network", "none", "--name", "serving", *options, busybox).ok()
    try:
        before = home.json("vm", "show", "serving")
        assert [one["guest_port"] for one in before["ports"]] == [7777, 7777, 7778, 7779]
        assert home.guest("serving", "ls /sys/class/net").ok().text == "lo\n"
        server = (
            "exec /bin/busybox nc -ll -p 7777 -e /bin/busybox netstat -tn"  # tells each client of its own connection
        )
        with home.cli.spawn("vm", "exec", "serving", "--", "sh", "-c", server) as serving:
            try:
                # a server that comes up between two of the agent's attempts is found at its loopback address
                eventually(lambda: _read_from(port), 60, "the server listens")
                for address in ("127.0.0.1", "::1"):
                    told = eventually(lambda at=address: _read_from(port, at), 60, f"an answer at {address}")
                    ends = b"".join(line for line in told.splitlines() if b"ESTABLISHED" in line)
                    assert b"10.0.2.15:7777" in ends
                    assert b"127.0.0.1" not in ends, "the server must not take the client for one of its own machine's"
                forwarder = home.forwarder(before["id"])
                os.kill(forwarder, signal.SIGKILL)
                assert b"ESTABLISHED" in eventually(lambda: _read_from(port), 20, "an answer by its successor")
                assert home.forwarder(before["id"]) != forwarder
                agents = "/bin/busybox pidof @banger-agent | /bin/busybox tr ' ' '\\n' | /bin/busybox sort -n"
                # the first one starts the second one again; a third one waits for a command
                home.guest("serving", f"kill -9 $({agents} | /bin/busybox sed -n 2p)")
                assert b"ESTABLISHED" in eventually(lambda: _read_from(port), 20, "an answer through the next agent")
            finally:
                serving.terminate()
                serving.communicate(timeout=30)
        random_port = before["ports"][3]["host_port"]
        with (
            pytest.raises(ConnectionResetError),  # which may be there before the connection is known to be
            socket.create_connection(("127.0.0.1", random_port), timeout=20) as stream,
        ):
            stream.recv(1)

        home.run("vm", "exec", "serving", "--", "/bin/busybox", "reboot")
        eventually(lambda: home.json("vm", "show", "serving")["pid"] not in (0, before["pid"]), 120, "it is back")
        home.run("vm", "wait", "--until", "running", "--timeout", "120s", "serving").ok()
        again = home.json("vm", "show", "serving")
        assert (again["ports"], again["id"], again["exit_reason"]) == (before["ports"], before["id"], "")
    finally:
        home.run("vm", "delete", "--force", "serving").ok()


def test_daemon_killed_while_a_vm_runs_finds_it_again(home: BangerHome, living: str) -> None:
    before = home.json("vm", "show", living)
    home.guest(living, "echo before > /dev/shm/mark").ok()
    home.kill_daemon()
    assert home.guest(living, "cat /dev/shm/mark").ok().text == "before\n"
    after = home.json("vm", "show", living)
    assert (after["state"], after["pid"]) == ("running", before["pid"])
    home.run("vm", "stop", living).ok()
    assert home.vmms() == [] or before["pid"] not in home.vmms()
    home.run("vm", "start", living).ok()


def test_vm_whose_daemon_was_killed_can_be_deleted(home: BangerHome, busybox: str) -> None:
    home.run("vm", "run", "--detach", "--name", "orphan", busybox).ok()
    pid = home.json("vm", "show", "orphan")["pid"]
    home.kill_daemon()
    home.run("vm", "delete", "--force", "orphan").ok()
    assert pid not in home.vmms()
    assert home.leftovers() == []


def test_vmm_killed_from_outside_is_noticed(home: BangerHome, living: str) -> None:
    os.kill(home.json("vm", "show", living)["pid"], signal.SIGKILL)
    eventually(lambda: home.json("vm", "show", living)["state"] == "stopped", 20, "the VM to be seen as stopped")
    assert home.json("vm", "show", living)["exit_reason"] in ("killed", "vmm_crash")
    home.run("vm", "start", living).ok()


def _read_from(port: int, address: str = "127.0.0.1") -> bytes:
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            connection.settimeout(5)
            return connection.makefile("rb").read()
    except OSError:
        return b""
