"""A VM's disks: other storage drivers than the default, growth, and homes that outlive VMs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon import BangerHome

pytestmark = pytest.mark.boot


@pytest.fixture
def copied(home: BangerHome, busybox: str) -> Iterator[str]:
    """A VM with a disk that is a whole copy of the image, and a home disk."""
    home.run(
        "vm", "run", "-d", "--name", "copied", "--storage", "copy", "--disk", "3G", "--home-disk", "work",
        "--home-size", "64M", "--memory", "256M", busybox,
    ).ok()  # fmt: skip
    yield "copied"
    home.run("vm", "delete", "--force", "copied")
    home.run("home", "delete", "work")


def root_mib(home: BangerHome, vm: str) -> int:
    return int(home.guest(vm, "df -m / | tail -n 1").ok().text.split()[1])


def test_copied_disk_grows_and_its_home_outlives_it(home: BangerHome, busybox: str, copied: str) -> None:
    assert home.json("vm", "show", copied)["storage"] == "copy"
    home.guest(copied, "echo on the disk > /file; echo at home > /root/file").ok()
    before = root_mib(home, copied)
    home.run("vm", "stop", copied).ok()
    refused = home.run("vm", "grow", copied, "--disk", "16M")
    assert refused.code == 2
    home.run("vm", "grow", copied, "--disk", "4G").ok()
    home.run("vm", "start", copied).ok()
    assert root_mib(home, copied) > before + 700
    assert home.guest(copied, "cat /file /root/file").ok().text == "on the disk\nat home\n"

    taken = home.run("vm", "run", "--home-disk", "work", busybox, "--", "true")
    assert taken.code == 125
    assert 'the home disk "work" is in use' in taken.errors

    home.run("vm", "delete", "--force", "--keep-home", copied).ok()
    assert [(one["name"], one["vm"]) for one in home.json("home", "list")] == [("work", "")]
    again = home.run("vm", "run", "--home-disk", "work", "--memory", "256M", busybox, "--", "cat", "/root/file")
    assert again.ok().text == "at home\n"
    assert [one["name"] for one in home.json("home", "list")] == ["work"], "a passing VM takes no home with it"
    home.run("home", "delete", "work").ok()
    assert home.json("home", "list") == []
    assert home.run("home", "delete", "work").code == 3


def test_storage_driver_that_there_is_none_of_is_refused(home: BangerHome, busybox: str) -> None:
    refused = home.run("vm", "create", "--storage", "floppy", busybox)
    assert refused.code == 2
    assert "overlay" in refused.errors
