"""Whole boots: images of every kind, a second boot, the ways a machine ends and the ways it fails to come up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from banger.core.console import boot_marks, exit_reason
from banger.core.models import ExitReason
from banger.core.ports import GuestNetwork
from banger.guest.boot import LinuxGuestBoot
from banger.layout import Layout
from tests.support.elf import static_hello
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
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, needs_qemu]

BUSYBOX = "/run/banger/bin/busybox"  # of the toolbox: the image may lack it

Start = Callable[..., AbstractContextManager[Machine]]


@pytest.fixture(scope="module")
def toolbox_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toolbox")


@pytest.fixture
def start(tmp_path: Path, toolbox_cache: Path) -> Start:
    """Boot a root disk with a writable disk that stays the same for every boot of one test."""
    key = make_ssh_key(tmp_path)
    data = make_ext4(tmp_path / "data.ext4", 512)

    def start(
        root: Path, *more: Disk, options: Sequence[str] = (), **changes: object
    ) -> AbstractContextManager[Machine]:
        boot = LinuxGuestBoot(Layout(tmp_path, tmp_path, tmp_path, toolbox_cache))
        disks = [*more, Disk(data, "data"), Disk(root, "root", read_only=True)]
        return machine(boot, debian_kernel(), disks, tmp_path, guest_config(key, **changes), options)

    return start


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    return busybox_tree(tmp_path / "tree", "sh cat ip poweroff reboot")


@pytest.fixture
def busybox_root(busybox: Path, tmp_path: Path) -> Path:
    return make_ext4(tmp_path / "root.ext4", 32, busybox)


# -- images ------------------------------------------------------------------------------------------------


def test_image_without_a_shell_runs_its_program_and_still_offers_a_shell(start: Start, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_bytes(static_hello("hello from scratch\n"))
    (tree / "hello").chmod(0o755)
    with start(make_ext4(tmp_path / "root.ext4", 32, tree)) as guest:
        wait_until_ready(guest)
        assert guest.run("/hello").stdout == "hello from scratch\n"
        assert guest.run("/hello", user="1000").stdout == "hello from scratch\n"
        assert guest.run("sh").returncode == 127
        assert guest.run(BUSYBOX, "ls", "/").stdout.split()[:2] == ["dev", "etc"]
        assert guest.ssh("echo $0; exit 5", "-T").returncode == 5


def add_busybox_init(tree: Path, inittab: str) -> None:
    (tree / "etc").mkdir()
    (tree / "sbin").mkdir()
    (tree / "etc/inittab").write_text(inittab)
    for applet in ("init", "poweroff"):
        (tree / "sbin" / applet).symlink_to("/bin/busybox")


def test_image_with_a_working_busybox_init_boots_it_and_powers_off_through_it(
    start: Start, busybox: Path, tmp_path: Path
) -> None:
    add_busybox_init(busybox, "::sysinit:/bin/sh -c 'echo started >/started'\n::shutdown:/bin/echo going down\n")
    with start(make_ext4(tmp_path / "root.ext4", 32, busybox)) as guest:
        wait_until_ready(guest)
        eventually(lambda: guest.run("cat", "/started").stdout == "started\n")
        assert guest.run("cat", "/proc/1/comm").stdout == "init\n"
        guest.power_off()
        assert guest.wait_until_off() == 0
        assert "going down" in guest.console
        assert exit_reason(guest.console)[0] is ExitReason.GUEST_POWEROFF


def test_image_with_an_inittab_for_programs_it_lacks_gets_the_small_init(
    start: Start, busybox: Path, tmp_path: Path
) -> None:
    add_busybox_init(busybox, "::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty 38400 tty1\n")
    with start(make_ext4(tmp_path / "root.ext4", 32, busybox)) as guest:
        wait_until_ready(guest)
        assert guest.run("cat", "/proc/1/comm").stdout == "start\n"


# -- life --------------------------------------------------------------------------------------------------


def test_second_boot_keeps_what_the_first_one_wrote_and_leaves_the_users_files_alone(
    start: Start, busybox_root: Path
) -> None:
    with start(busybox_root) as guest:
        wait_until_ready(guest)
        guest.run("sh", "-c", "echo kept >/kept; echo nameserver 192.0.2.1 >/etc/resolv.conf")
        guest.power_off()
        assert guest.wait_until_off() == 0
        assert exit_reason(guest.console)[0] is ExitReason.GUEST_POWEROFF
    with start(busybox_root) as guest:
        wait_until_ready(guest)
        assert guest.run("cat", "/kept").stdout == "kept\n"
        assert guest.run("cat", "/etc/resolv.conf").stdout == "nameserver 192.0.2.1\n"
        assert guest.run("cat", "/etc/hosts").stdout.count("guest-1") == 1


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("banger-exec -- poweroff", ExitReason.GUEST_POWEROFF),
        ("banger-exec -- reboot", ExitReason.GUEST_REBOOT),
    ],
)
def test_small_init_survives_the_end_of_all_processes_and_ends_the_machine_when_asked(
    start: Start, busybox_root: Path, command: str, reason: ExitReason
) -> None:
    with start(busybox_root) as guest:
        wait_until_ready(guest)
        guest.kill_all()
        guest.ssh(command)
        assert guest.wait_until_off() == 0
        assert exit_reason(guest.console)[0] is reason


def test_guest_without_network_has_an_address_but_no_way_out(start: Start, busybox_root: Path) -> None:
    with start(busybox_root, network=GuestNetwork("10.0.2.15/24")) as guest:
        wait_until_ready(guest)
        assert "default" not in guest.run("ip", "route").stdout
        assert guest.run("cat", "/etc/resolv.conf").returncode == 1


def test_guest_whose_clock_is_behind_takes_the_hosts_time(start: Start, busybox_root: Path) -> None:
    before = int(time.time())
    with start(busybox_root, options=["-rtc", "base=2001-02-03"]) as guest:
        wait_until_ready(guest)
        shown = int(guest.run(BUSYBOX, "date", "+%s").stdout)
        assert before <= shown <= time.time()


def test_guest_with_a_modules_disk_loads_modules_from_it(start: Start, busybox_root: Path) -> None:
    with start(busybox_root, Disk(debian_kernel() / "modules.ext4", "modules", read_only=True)) as guest:
        wait_until_ready(guest)
        assert guest.run(BUSYBOX, "modprobe", "dm-snapshot").returncode == 0
        assert "dm_snapshot" in guest.run("cat", "/proc/modules").stdout


# -- failures ----------------------------------------------------------------------------------------------


def test_boot_from_a_disk_without_a_file_system_says_so_and_powers_off(start: Start, tmp_path: Path) -> None:
    blank = tmp_path / "blank"
    blank.write_bytes(bytes(1 << 20))
    with start(blank) as guest:
        assert guest.wait_until_off() == 0
        assert "cannot mount the image" in boot_marks(guest.console).failure


def test_boot_with_an_init_that_the_image_lacks_says_so_and_powers_off(start: Start, busybox_root: Path) -> None:
    with start(busybox_root, init="image") as guest:
        assert guest.wait_until_off() == 0
        assert boot_marks(guest.console).failure == "the image has no /sbin/init"
