"""Snapshots of real machines: what runs in them goes on, in each as if nothing had happened, and nobody is taken for another."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.crash_points import points_of
from tests.support.daemon import BangerHome
from tests.support.waiting import eventually
from tests.support.who import WHO, check_all_differ

pytestmark = pytest.mark.boot

#: A process that counts, in memory alone.
COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /run/count; sleep 0.1; done"

#: What a kernel must not repeat, a line each.
RANDOM = "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def counting(home: BangerHome, busybox: str) -> Iterator[str]:
    """A VM in which a process counts, with a file on its disk."""
    home.run("vm", "run", "--detach", "--name", "counting", "--memory", "256M", busybox).ok()
    start = f"echo first > /root-file; (setsid sh -c '{COUNTER}' </dev/null >/dev/null 2>&1 & echo $! > /run/pid)"
    home.guest("counting", start).ok()
    eventually(lambda: count(home, "counting") > 0, what="the process counts")
    yield "counting"
    home.run("vm", "delete", "--force", "counting").ok()


def count(home: BangerHome, vm: str) -> int:
    return int(home.guest(vm, "cat /run/count 2>/dev/null || echo 0").ok().text or 0)


def goes_on(home: BangerHome, vm: str) -> int:
    """The process in it counts on; where it was when first looked at."""
    first = count(home, vm)
    eventually(lambda: count(home, vm) > first, what=f"the process in {vm} goes on")
    return first


def test_forks_of_a_running_vm_go_on_from_its_memory_and_disk_as_machines_of_their_own(
    home: BangerHome, counting: str
) -> None:
    pid = home.json("vm", "show", counting)["pid"]
    before = goes_on(home, counting)
    forked = home.run("vm", "fork", counting, "-n", "3", "--name", "copy-{n}").ok()
    names = forked.text.split()
    try:
        assert names == ["copy-1", "copy-2", "copy-3"]
        home.guest(counting, "echo later > /root-file; echo later > /run/later").ok()
        assert all(goes_on(home, vm) >= before for vm in names)
        assert {home.guest(vm, "cat /root-file; ls /run/later 2>/dev/null").text for vm in names} == {"first\n"}
        assert (home.json("vm", "show", counting)["pid"], goes_on(home, counting) > before) == (pid, True)
        told = [home.guest(vm, WHO).ok().text for vm in (counting, *names)]
        check_all_differ(told)
        assert [one.splitlines()[0] for one in told] == [counting, *names]
        for vm in names:
            home.guest(vm, f"echo {vm} > /root-file").ok()
        assert [home.guest(vm, "cat /root-file").text.strip() for vm in (counting, *names)] == ["later", *names]
        [grandchild] = home.run("vm", "fork", "copy-1").ok().text.split()
        names.append(grandchild)
        assert goes_on(home, grandchild) >= before
        assert home.guest(grandchild, "cat /root-file").text == "copy-1\n"
    finally:
        home.run("vm", "delete", "--force", *names).ok()
        home.guest(counting, "echo first > /root-file; rm -f /run/later")
    assert home.json("snapshot", "list") == []
    assert home.leftovers() == []


def test_vm_is_rewound_in_its_place_as_often_as_wanted_and_stays_who_it_is(home: BangerHome, counting: str) -> None:
    marks = "cat /root-file /dev/shm/mark; ls /run/later 2>/dev/null; true"
    stays = "hostname; cat /etc/hostname; cat /etc/machine-id 2>/dev/null; true"
    home.run("vm", "fork", counting, "--name", "back", "-p", "7777").ok()
    try:
        home.guest("back", "mkdir -p /dev/shm; echo first > /dev/shm/mark").ok()
        before, who = home.json("vm", "show", "back"), home.guest("back", stays).text
        home.run("vm", "snapshot", "create", "back", "--name", "then").ok()
        made = {home.guest("back", RANDOM).text}
        for times in (1, 2):
            home.guest("back", "for file in /root-file /dev/shm/mark /run/later; do echo later > $file; done").ok()
            with home.cli.spawn("vm", "exec", "back", "--", "sh", "-c", "echo here; cat") as patient:
                assert patient.stdout is not None
                assert patient.stdout.readline() == b"here\n"
                assert home.run("vm", "rewind", "back", *(["then"] * (times - 1))).ok().text == "back\n"
                _, errors = patient.communicate(timeout=60)
            assert b"the VM was rewound" in errors
            assert home.guest("back", marks).text == "first\nfirst\n"
            goes_on(home, "back")
            after = home.json("vm", "show", "back")
            assert [after[key] for key in ("id", "name", "ports", "state")] == [
                *(before[key] for key in ("id", "name", "ports")),
                "running",
            ]
            assert home.guest("back", stays).text == who
            assert home.run("vm", "ssh", "back", "--", "echo same key").ok().text == "same key\n"
            made.add(home.guest("back", RANDOM).text)
            assert len({line for told in made for line in told.splitlines()}) == 2 * (times + 1)
        undone = ("vm", "exec", "--checkpoint", "auto", "back", "--", "rm", "/root-file", "/dev/shm/mark")
        home.run(*undone).ok()
        assert home.guest("back", marks).text == ""
        home.run("vm", "rewind", "back").ok()
        assert home.guest("back", marks).text == "first\nfirst\n"
        home.run("vm", "stop", "back").ok()
        home.run("vm", "rewind", "back", "then").ok()
        assert home.guest("back", marks).text == "first\nfirst\n"
        archive = home.run("snapshot", "export", "then", "-").ok().output
        home.run("snapshot", "import", "-", "--name", "carried", stdin=archive).ok()
        home.run("vm", "restore", "carried", "--name", "carried").ok()
        assert home.guest("carried", marks).text == "first\nfirst\n"
        goes_on(home, "carried")
        home.run("snapshot", "delete", "carried").ok()
        assert home.run("snapshot", "prune", "--keep", "1", "--vm", "back").ok().text == "snapshot then\n"
    finally:
        home.run("vm", "delete", "--force", "back", "carried")
        home.run("snapshot", "prune", "--keep", "0").ok()
    assert home.leftovers() == []


def test_snapshot_outlives_its_vm_and_is_restored_as_often_as_wanted(home: BangerHome, counting: str) -> None:
    home.run("vm", "fork", counting, "--name", "short-lived").ok()
    at = goes_on(home, "short-lived")
    home.run("vm", "snapshot", "create", "short-lived", "--name", "ready", "--stop").ok()
    assert home.json("vm", "show", "short-lived")["state"] == "stopped"
    home.run("vm", "delete", "short-lived").ok()
    try:
        shown = home.json("snapshot", "show", "ready")
        assert (shown["memory_mib"], shown["vmm"]) == (256, "qemu")
        assert 0 < shown["memory_bytes"] < 256 << 20
        refused = home.run("image", "delete", "busybox")
        assert refused.code == 4
        assert "snapshot ready" in refused.errors
        for name in ("first", "second"):
            home.run("vm", "restore", "ready", "--name", name).ok()
            assert goes_on(home, name) >= at
            assert home.guest(name, "hostname").text == f"{name}\n"
        home.run("snapshot", "delete", "ready").ok()
        assert all(goes_on(home, name) >= at for name in ("first", "second"))  # whoever runs needs it no more
        home.run("vm", "restart", "first").ok()
        assert home.guest("first", "cat /root-file; ls /run/count 2>/dev/null").text == "first\n"
    finally:
        home.run("vm", "delete", "--force", "first", "second")
        home.run("snapshot", "delete", "ready")
    assert json.loads(home.run("system", "df", "--json").ok().text)["snapshots_bytes"] == 0
    assert home.leftovers() == []


def test_vm_goes_on_when_the_supervisor_dies_while_it_is_forked_and_no_half_of_a_fork_is_left(
    home: BangerHome, counting: str
) -> None:
    pid = home.json("vm", "show", counting)["pid"]
    for point in points_of("fork", ()):
        home.kill_daemon()
        done = home.run("vm", "fork", counting, "--name", "half", BANGER_CRASHPOINT=point)
        assert done.code != 0, f"{point} was not come by: {done}"
        vms = home.json("vm", "list")  # the next supervisor, which has looked at everything before it answers
        if point.startswith("vm.keep:"):  # it was all there
            home.run("vm", "delete", "--force", "half").ok()
        else:
            assert [vm["name"] for vm in vms if vm["name"] == "half"] == [], point
        goes_on(home, counting)
        assert home.json("vm", "show", counting)["pid"] == pid, point
        assert home.leftovers() == [], point
    home.run("vm", "fork", counting, "--name", "whole").ok()
    goes_on(home, "whole")
    home.run("vm", "delete", "--force", "whole").ok()
