"""Boots of a VM whose root disk is its own, and of one with a home disk: twice each, as their second boot differs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from banger.config import Config
from banger.core.models import Image, Vm, VmState
from banger.core.wire.vm_spec import VmSpec
from banger.guest.boot import LinuxGuestBoot
from banger.layout import Layout
from banger.storage.full_copy import CopyStorage
from banger.storage.home_disk import HomeDisk
from banger.storage.overlay import OverlayStorage
from tests.support.frozen import freezes_and_thaws
from tests.support.qemu_boot import (
    Disk,
    Machine,
    busybox_tree,
    debian_kernel,
    guest_config,
    machine,
    make_ext4,
    make_ssh_key,
    needs_qemu,
    wait_until_ready,
)
from tests.support.storage import MemoryLedger, operation

pytestmark = [pytest.mark.boot, needs_qemu]


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """An image with a shell, a name of its own, and a home directory that is not where it seems."""
    tree = busybox_tree(tmp_path / "tree", "sh cat mount df", ("etc", "var/home"))
    (tree / "etc/hostname").write_text("of-the-image\n")
    (tree / "root").symlink_to("var/home")
    return make_ext4(tmp_path / "rootfs.ext4", 32, tree)


def shown(guest: Machine, command: str) -> str:
    done = guest.run("sh", "-c", command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def power_off(guest: Machine) -> None:
    guest.power_off()
    assert guest.wait_until_off() == 0


def test_guest_with_a_root_of_its_own_boots_it_and_sets_names_once(rootfs: Path, tmp_path: Path) -> None:
    driver, key = CopyStorage(), make_ssh_key(tmp_path)
    boot = LinuxGuestBoot(Layout(tmp_path, tmp_path, tmp_path, tmp_path / "cache"))
    driver.create(tmp_path, rootfs, 96, operation())
    for first in (True, False):
        drives = driver.attach("cafe", tmp_path, rootfs, MemoryLedger())
        disks = [Disk(drive.path, drive.label, drive.read_only) for drive in drives]
        with machine(boot, debian_kernel(), disks, tmp_path, guest_config(key, root=driver.root)) as guest:
            wait_until_ready(guest)
            if first:
                guest.ask(freezes_and_thaws("/"))
                assert shown(guest, "cat /etc/hostname") == "guest-1\n"
                assert int(shown(guest, "df -m / | cat").split()[-5]) > 80
                shown(guest, "echo kept >/kept; echo mine >/etc/hostname")
            else:
                assert shown(guest, "cat /kept /etc/hostname") == "kept\nmine\n"
                assert shown(guest, "cat /etc/hosts").count("guest-1") == 1
                assert " / ext4 rw" in shown(guest, "cat /proc/mounts")
                assert "overlay" not in shown(guest, "cat /proc/mounts")
            power_off(guest)
        driver.grow(tmp_path, 128, operation())


def test_home_disk_is_made_of_the_seed_and_goes_on_to_the_next_vm(rootfs: Path, tmp_path: Path) -> None:
    layout, key = Layout(tmp_path / "data", tmp_path, tmp_path, tmp_path / "cache"), make_ssh_key(tmp_path)
    boot = LinuxGuestBoot(layout)
    image = Image("a", "debian", "s", "d", "linux/amd64", 1, 1, datetime.now(UTC), has_seed=True)
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "dotfile").write_text("of the image\n")
    layout.image_dir("a").mkdir(parents=True)
    make_ext4(layout.image_seed(image), 16, seed)
    homes, storage = HomeDisk(layout, Config.load(tmp_path / "none", {})), OverlayStorage()
    for vm_id in ("one", "two"):
        vm = Vm(vm_id, vm_id, VmSpec("debian", home="work", home_mib=64), VmState.STOPPED, datetime.now(UTC))
        ledger, vm_dir = MemoryLedger(vm_id), layout.vm_dir(vm_id)
        vm_dir.mkdir(parents=True)
        storage.create(vm_dir, rootfs, 64, operation())
        given = homes.prepare(vm, image, ledger, operation())
        drives = [*storage.attach(vm_id, vm_dir, rootfs, ledger), *given.devices]
        disks = [Disk(drive.path, drive.label, drive.read_only) for drive in drives]
        with machine(boot, debian_kernel(), disks, tmp_path, guest_config(key, mounts=given.mounts)) as guest:
            wait_until_ready(guest)
            homes.started(vm, ledger)
            assert shown(guest, "cat /root/dotfile") == "of the image\n"
            assert int(shown(guest, "df -m /root | cat").split()[-5]) > 50
            if vm_id == "one":
                guest.ask(freezes_and_thaws("/", "/root"))
                shown(guest, "echo kept >/root/kept")
            else:
                assert shown(guest, "cat /root/kept") == "kept\n"
            power_off(guest)
        homes.release(vm, keep=True)
