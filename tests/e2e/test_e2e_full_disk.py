"""A real guest whose host has no room for what it writes, while no daemon looks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.core.cancel import Deadline
from banger.vmm.qemu import launch, qmp
from tests.support.daemon import BangerHome
from tests.support.waiting import eventually

pytestmark = pytest.mark.boot

_BYTES = 48 << 20
#: Begins once the daemon is gone, and outlives it; what has not come to the disk is still in the guest's memory.
_FILL = f"(while [ ! -e /go ]; do sleep 0.2; done; head -c {_BYTES} /dev/zero > /big && sync; echo $? > /done) &"


class SmallDisk:
    """A file system of its own over the VM's directory, of a size that can be changed."""

    def __init__(self, directory: Path, aside: Path) -> None:
        self.directory = directory
        subprocess.run(["cp", "-a", "--sparse=always", str(directory), str(aside)], check=True)
        self._mount("size=4g,mode=0700")
        subprocess.run(["cp", "-a", "--sparse=always", f"{aside}/.", str(directory)], check=True)

    def leave_mib(self, mib: int) -> None:
        """Leave so much room in it."""
        usage = shutil.disk_usage(self.directory)
        self._mount(f"remount,size={usage.used + (mib << 20)}")

    def close(self) -> None:
        subprocess.run(["umount", str(self.directory)], check=True)

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "banger-test", str(self.directory)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this user cannot mount a tmpfs here")


@pytest.fixture
def small_disk(home: BangerHome, busybox: str, tmp_path: Path) -> Iterator[SmallDisk]:
    home.run("vm", "create", "--name", "filling", "--memory", "128M", "--disk", "512M", busybox).ok()
    disk = SmallDisk(home.data / "vms" / home.json("vm", "show", "filling")["id"], tmp_path / "aside")
    yield disk
    home.run("vm", "kill", "filling")
    disk.close()
    home.run("vm", "delete", "--force", "filling").ok()


def run_state(run_dir: Path) -> str:
    """What QEMU itself says."""
    with qmp.session(launch.qmp_path(run_dir), Deadline.after(10.0)) as session:
        return str(session.execute("query-status")["status"])


def shown(home: BangerHome) -> tuple[str, str]:
    vm = home.json("vm", "show", "filling")
    return vm["state"], vm["paused_by"]


def test_guest_that_found_no_room_while_no_daemon_ran_is_paused_and_loses_nothing(
    home: BangerHome, small_disk: SmallDisk
) -> None:
    home.run("vm", "start", "filling").ok()
    home.guest("filling", _FILL).ok()
    (run_dir,) = (path.parent for path in home.path.glob(f"**/{small_disk.directory.name}/qmp.sock"))
    small_disk.leave_mib(8)
    home.guest("filling", "echo > /go").ok()
    home.kill_daemon()
    eventually(lambda: run_state(run_dir) == "io-error", timeout_s=60.0, what="the guest finds no room")

    assert shown(home) == ("paused", "guard"), "the daemon that this has started has looked"
    assert "paused (no room)" in home.run("vm", "list").ok().text
    assert "disk is full" in home.run("vm", "why", "filling").ok().text
    refused = home.run("vm", "exec", "filling", "--", "true")
    assert "is paused, not running" in refused.errors
    assert "disk is full" in refused.errors
    refused = home.run("vm", "resume", "filling")
    assert "cannot go on" in refused.errors
    assert refused.code != 0
    assert shown(home) == ("paused", "guard")

    small_disk.leave_mib(2048)
    eventually(lambda: shown(home) == ("running", ""), timeout_s=60.0, what="it goes on by itself")
    eventually(lambda: home.guest("filling", "cat /done").text == "0\n", timeout_s=120.0, what="it is all written")
    assert home.guest("filling", "stat -c %s /big").ok().text == f"{_BYTES}\n"
    console = home.run("vm", "logs", "filling").ok().text
    assert "I/O error" not in console
    assert "EXT4-fs error" not in console
